"""A small HTTP/1.1 client: keep-alive, pooled, with a time limit per call. Just what the demo's handlers need.

Connections are reused last in, first out, so that a quiet pool shrinks to the few that are warm. A call that runs
into its time limit, or whose caller is cancelled, closes its connection: the answer may still come, and the
next call must not read it.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

#: The largest answer that is accepted: a page of 5,000 ids has about 60 kB.
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024

_Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class BadAnswerError(ConnectionError):
    """The server sent what is not an HTTP/1.1 answer with a length."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class HttpClient:
    """Calls to one server, from one event loop. `timeout_s` is for a whole call, connecting included."""

    def __init__(self, base_url: str, *, timeout_s: float = 10.0, connections_max: int = 100) -> None:
        parts = urlsplit(base_url)
        if parts.scheme != "http" or not parts.hostname:
            raise ValueError(f"not an http:// address: {base_url!r}")
        self._host = parts.hostname
        self._port = parts.port or 80
        self._timeout_s = timeout_s
        self._room = asyncio.Semaphore(connections_max)
        self._idle: list[_Connection] = []

    async def request(self, method: str, path: str, *, bearer: str = "") -> Response:
        """Make one call. Raises TimeoutError, or OSError if the server cannot be reached or breaks off."""
        head = [f"{method} {path} HTTP/1.1", f"host: {self._host}"]
        if bearer:
            head.append(f"authorization: Bearer {bearer}")
        if method == "POST":
            head.append("content-length: 0")
        async with self._room, asyncio.timeout(self._timeout_s):
            reader, writer = self._warm() or await asyncio.open_connection(
                self._host, self._port, limit=ANSWER_BYTES_MAX
            )
            try:
                writer.write(("\r\n".join(head) + "\r\n\r\n").encode("latin-1"))
                response = await _read_response(reader)
            except BaseException:
                writer.transport.abort()
                raise
        if response.headers.get("connection", "").lower() == "close":
            writer.close()
        else:
            self._idle.append((reader, writer))
        return response

    async def aclose(self) -> None:
        """Close the idle connections."""
        while self._idle:
            _, writer = self._idle.pop()
            writer.close()
            await writer.wait_closed()

    def _warm(self) -> _Connection | None:
        while self._idle:
            reader, writer = self._idle.pop()
            if not (writer.is_closing() or reader.at_eof()):
                return reader, writer
            writer.close()
        return None


async def _read_response(reader: asyncio.StreamReader) -> Response:
    try:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {}
        for line in lines[1:-2]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        version, status, *_ = lines[0].split(" ")
        length = int(headers["content-length"])
        if version != "HTTP/1.1" or not 0 <= length <= ANSWER_BYTES_MAX:
            raise ValueError(f"version {version}, {length} bytes")
        return Response(int(status), headers, await reader.readexactly(length))
    except asyncio.IncompleteReadError as error:
        raise ConnectionResetError("the server closed the connection before its answer was whole") from error
    except (ValueError, KeyError, asyncio.LimitOverrunError) as error:
        raise BadAnswerError(f"not an HTTP/1.1 answer with a content-length: {error!r}") from error
