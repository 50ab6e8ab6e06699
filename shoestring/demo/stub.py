"""The social API as a process of its own: `python -m shoestring.demo.stub ['{"seed": 2, ...}']`.

It speaks HTTP/1.1 with keep-alive on a loopback port the kernel chooses, and prints its address as one line once it
listens. The argument is `social.Rules` as JSON. The calls:

    GET  /followers/ACCOUNT?cursor=N   a page of ids: {"ids": [...], "next_cursor": "N" | null}
    POST /blocks/ID                    block the account; 200, 403, 404, 429, 500, 503
    POST /messages                     tell the user that the job is done
    GET  /stats                        the counts of all users, without limits or delay

The user is named by `Authorization: Bearer NAME`. A 429 carries `x-ratelimit-reset-after`, in seconds with decimals.

The daemon under test shares two cores with this process, so a request must cost little: one regular expression per
part of the head, no framework.
"""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from typing import Final
from urllib.parse import unquote

import msgspec

from shoestring.demo.social import Answer, Rules, SocialApi

RESET_HEADER: Final = "x-ratelimit-reset-after"

#: A longer head is refused; the demo's have about 120 bytes.
HEAD_BYTES_MAX: Final = 8_192
BODY_BYTES_MAX: Final = 65_536

_REQUEST_LINE: Final = re.compile(rb"(GET|POST) (/[^ ?]*)(?:\?cursor=([^ ]*))? HTTP/1\.1\r\n")
_BEARER: Final = re.compile(rb"\r\nauthorization: bearer ([^\r]*)\r\n", re.IGNORECASE)
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]{1,9}) *\r\n", re.IGNORECASE)

_REASONS: Final = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    413: "Content Too Large",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


class Stub:
    """Serves one SocialApi; one coroutine per connection, which answers its requests in their order."""

    def __init__(self, api: SocialApi) -> None:
        self._api = api

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection until it closes or sends what is not a request."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(head)
                if length is not None and int(length[1]) > BODY_BYTES_MAX:
                    _refuse(writer, 413)
                    return
                if length is not None:
                    await reader.readexactly(int(length[1]))
                answer = self._call(head)
                if answer is None:
                    _refuse(writer, 400)
                    return
                if answer.delay_s > 0:
                    await asyncio.sleep(answer.delay_s)
                _answer(writer, answer)
        except asyncio.LimitOverrunError:
            _refuse(writer, 431)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client went away: what it asked for is done and counted
        finally:
            writer.close()

    def _call(self, head: bytes) -> Answer | None:
        """Return what the API answers to the request, None if it is no request this API knows."""
        line = _REQUEST_LINE.match(head)
        if line is None:
            return None
        bearer = _BEARER.search(head)
        user = bearer[1].decode("latin-1") if bearer else ""
        now_s = asyncio.get_running_loop().time()
        match line[1], line[2].split(b"/")[1:]:
            case b"POST", [b"blocks", target] if target.isdigit():
                return self._api.block(user, int(target), now_s)
            case b"GET", [b"followers", account]:
                cursor = (line[3] or b"").decode("latin-1")
                return self._api.followers(user, unquote(account.decode("latin-1")), cursor, now_s)
            case b"POST", [b"messages"]:
                return self._api.tell(user)
            case b"GET", [b"stats"]:
                return Answer(200, msgspec.json.encode(self._api.stats()), 0.0)
            case _:
                return None


def _answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
    reset = ""
    if answer.reset_after_s is not None:
        # A millisecond more: a client that waits exactly this long must find the window open.
        reset = f"{RESET_HEADER}: {answer.reset_after_s + 0.001:.3f}\r\n"
    head = (
        f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(answer.body)}\r\n{reset}\r\n"
    )
    writer.write(head.encode() + answer.body)


def _refuse(writer: asyncio.StreamWriter, status: int) -> None:
    """Answer what cannot be understood; the caller closes, as where the next request starts is not known."""
    writer.write(f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())


async def run(rules: Rules) -> None:
    """Serve until SIGTERM or SIGINT. Prints `http://127.0.0.1:PORT` once it listens."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    stub = Stub(SocialApi(rules))
    server = await asyncio.start_server(stub.serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX, backlog=512)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await stopped.wait()
    server.close()


def main(arguments: list[str]) -> int:
    try:
        rules = msgspec.json.decode(arguments[0] if arguments else "{}", type=Rules)
    except msgspec.DecodeError as error:
        print(f"these rules cannot be used: {error}. Give social.Rules as a JSON object.", file=sys.stderr)
        return 2
    import uvloop

    uvloop.run(run(rules))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
