"""One connection to the daemon, from connect to loss. Nothing here knows why a request was made."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

from shoestring.core.errors import ConfigError, RemoteProtocolError
from shoestring.core.wire import Framer, Response, parse_response

#: What a daemon may answer in one line: a listing of 1,000 tasks with their tracebacks is the longest.
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024

Answered = Callable[[Response], None]
Lost = Callable[[Exception | None], None]


class Connection(asyncio.Protocol):
    """Cuts what arrives into answers and hands each to who listens."""

    def __init__(self, answered: Answered, lost: Lost) -> None:
        self.is_lost = False
        self._answered = answered
        self._on_lost = lost
        self._framer = Framer(ANSWER_BYTES_MAX)
        self._transport: asyncio.Transport | None = None

    def listen(self, answered: Answered, lost: Lost) -> None:
        """Hand answers to `answered` from now on, and tell `lost` once if the connection ends by itself."""
        self._answered = answered
        self._on_lost = lost

    def write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def close(self) -> None:
        """Close, and tell nobody; what is written is sent first."""
        self._on_lost = _ignore
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    # -- What asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's, they only have the same methods.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for line in self._framer.feed(data):
                self._answered(parse_response(line))
        except RemoteProtocolError as error:
            # Bytes that make no sense: what would follow them cannot be trusted either.
            lost = self._on_lost
            self.close()
            self.is_lost = True
            lost(error)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_lost = True
        self._transport = None
        self._on_lost(error)


def _ignore(_: object) -> None:
    """Stand in for a listener that has been told already, or wants to hear no more."""


async def connect(path: Path, answered: Answered, lost: Lost) -> Connection:
    """Connect to the socket at `path`; what it says before this returns is heard too.

    Raises OSError if it cannot be reached: FileNotFoundError and ConnectionRefusedError mean that no daemon is
    there, BlockingIOError that one is, with a full backlog. asyncio's own connect takes the last one for success,
    and the first send then fails with ENOTCONN; connecting a Unix socket never has to wait, so it is done here.
    """
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        connecting.connect(os.fspath(path))
        _, connection = await asyncio.get_running_loop().create_unix_connection(
            lambda: Connection(answered, lost), sock=connecting
        )
    except OSError as error:
        connecting.close()
        if str(error) == "AF_UNIX path too long":
            raise ConfigError(f"the socket's path {path} is too long for a Unix socket; set a shorter one") from error
        raise
    except BaseException:
        connecting.close()
        raise
    return connection
