"""The stub and the handlers' HTTP client against each other, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import msgspec
import pytest

from shoestring.demo.http import BadAnswerError, HttpClient
from shoestring.demo.social import ID_SPAN, Rules, SocialApi, Tally
from shoestring.demo.stub import HEAD_BYTES_MAX, RESET_HEADER, Stub

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve, **limits: float) -> AsyncIterator[tuple[HttpClient, int]]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=HEAD_BYTES_MAX)
    port = server.sockets[0].getsockname()[1]
    client = HttpClient(f"http://127.0.0.1:{port}", timeout_s=limits.get("timeout_s", 5.0))
    try:
        yield client, port
    finally:
        await client.aclose()
        server.close()


def stub(**changes: object) -> Stub:
    calm = {"errors": 0.0, "late": 0.0, "gone": 0.0, "suspended": 0.0, "latency_ms_min": 0.0, "latency_ms_max": 0.5}
    return Stub(SocialApi(Rules(**{**calm, "followers": [100], **changes})))  # type: ignore[arg-type]


async def stats(client: HttpClient) -> Tally:
    response = await client.request("GET", "/stats")
    return msgspec.json.decode(response.body, type=list[Tally])[0]


async def exchange(port: int, sent: bytes) -> bytes:
    """Send raw bytes and return all that comes back until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    writer.write_eof()
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


async def test_a_page_and_blocks_arrive_over_one_kept_connection() -> None:
    """A connection per call would cost the two shared cores more than the calls do."""
    connections = 0
    api = stub()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await api.serve(reader, writer)

    async with serving(serve) as (client, _):
        page = await client.request("GET", "/followers/troll-of-ada?cursor=", bearer="ada")
        ids = msgspec.json.decode(page.body)["ids"]
        statuses = {(await client.request("POST", f"/blocks/{target}", bearer="ada")).status for target in ids[:5]}

        assert (100, {200}, 1) == (len(ids), statuses, connections)
        assert (await stats(client)).blocked == 5


async def test_an_empty_window_answers_429_with_the_seconds_to_wait() -> None:
    """The handler parks its lane until exactly then; without the header it would have to guess."""
    async with serving(stub(blocks_per_window=0, window_s=60.0).serve) as (client, _):
        response = await client.request("POST", f"/blocks/{ID_SPAN + 1}", bearer="ada")

        assert response.status == 429
        assert 0 < float(response.headers[RESET_HEADER]) <= 60.001
        assert ((await stats(client)).block_calls, (await stats(client)).limited_blocks) == (0, 1)


async def test_concurrent_calls_are_all_counted() -> None:
    """The count is the demo's evidence: it must be exact under load."""
    async with serving(stub().serve) as (client, _):
        await asyncio.gather(
            *(client.request("POST", f"/blocks/{ID_SPAN + 1 + place % 100}", bearer="ada") for place in range(150))
        )

        ada = await stats(client)
        assert (ada.blocked, ada.block_calls, ada.repeated) == (100, 150, 50)


async def test_a_late_answer_times_out_and_never_reaches_the_next_call() -> None:
    """An answer read by the wrong call would report the wrong account as done."""
    release = asyncio.Event()

    async def slow_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"/slow" in head:
            await release.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + (b"slow" if b"/slow" in head else b"next"))
        writer.close()

    async with serving(slow_first, timeout_s=0.05) as (client, _):
        with pytest.raises(TimeoutError):
            await client.request("GET", "/slow")
        release.set()

        assert (await client.request("GET", "/next")).body == b"next"


async def test_a_connection_closed_by_the_server_is_not_used_again() -> None:
    """After the API restarts, the pool must not fail one call per idle connection."""

    async def one_call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        writer.close()

    async with serving(one_call) as (client, _):
        assert [(await client.request("GET", "/")).status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ConnectionResetError),
        (b"HTTP/1.1 200 OK\r\n\r\n", BadAnswerError),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BadAnswerError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n", BadAnswerError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n", BadAnswerError),
    ],
)
async def test_what_is_no_answer_is_an_error_that_can_be_retried(answer: bytes, error: type[OSError]) -> None:
    """The retry policy covers OSError; anything else would discard the item."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with serving(serve) as (client, _):
        with pytest.raises(error):
            await client.request("GET", "/")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"DELETE / HTTP/1.1\r\n\r\n", b"400"),
        (b"GET / HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /blocks/12x HTTP/1.1\r\n\r\n", b"400"),
        (b"POST /messages HTTP/1.1\r\ncontent-length: 99999999\r\n\r\n", b"413"),
        (b"GET /" + b"x" * (HEAD_BYTES_MAX + 10), b"431"),
    ],
)
async def test_the_stub_refuses_what_it_does_not_know(sent: bytes, status: bytes) -> None:
    """A typo in a handler must show as an error, not as an account that is gone."""
    async with serving(stub().serve) as (_, port):
        assert b"HTTP/1.1 " + status == (await exchange(port, sent))[:12]


async def test_pipelined_requests_are_answered_in_their_order() -> None:
    """HTTP/1.1 has no other way to tell which answer is whose."""
    calls = b"".join(
        b"POST /blocks/%d HTTP/1.1\r\nAuthorization: Bearer %s\r\nContent-Length: 2\r\n\r\n{}" % (ID_SPAN + 1, user)
        for user in (b"ada", b"eve", b"ada")
    )
    async with serving(stub().serve) as (_, port):
        received = await exchange(port, calls)

    assert [part[:3] for part in received.split(b"HTTP/1.1 ")[1:]] == [b"200", b"401", b"200"]


def test_the_client_wants_an_http_address() -> None:
    """A wrong address must not become a hundred thousand retries."""
    with pytest.raises(ValueError, match="https://"):
        HttpClient("https://example.org")
