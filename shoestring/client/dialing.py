"""From a path to a daemon that has said hello, however many attempts it takes.

A daemon that was never reached is not waited for, because a wrong path would look like a slow program; one that was
reached before is given `reconnect_timeout` seconds to come back. One that is there but busy (its backlog or its
connections are full) is given as long.
"""

from __future__ import annotations

import asyncio
import uuid
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from shoestring.client.absence import away
from shoestring.client.connection import Connection, connect
from shoestring.core.errors import Refused, RemoteProtocolError, ShoestringError
from shoestring.core.wire import Response, encode_request

#: The id of `hello`; a link's requests count from 1.
HELLO_ID: Final = 0
#: Pauses between attempts to connect. Connecting to a Unix socket costs 30 us: the first are short, so that a
#: restart of 25 ms is not noticed.
FIRST_PAUSE_S: Final = 0.01
LONGEST_PAUSE_S: Final = 0.5
#: How long a daemon that took the connection may take to say hello: it may be reading its database first.
HELLO_S: Final = 10.0


class Greeting(msgspec.Struct, frozen=True):
    """What the daemon says of itself when a connection begins."""

    version: str
    generation: int
    frame_bytes_max: int
    payload_bytes_max: int
    window: int


_decode_greeting: Final = msgspec.json.Decoder(Greeting).decode


class Dialer:
    """Connects one client to the daemon at `path`, again and again."""

    def __init__(self, path: Path, *, connect_timeout: float, reconnect_timeout: float) -> None:
        self.path = path
        #: What the daemon said last; None until it was reached.
        self.greeting: Greeting | None = None
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = reconnect_timeout
        #: The daemon keys its memory of this client by it; 122 random bits are never drawn twice.
        self._name = uuid.uuid4().hex

    async def dial(self) -> Connection:
        """Return a connection that has been greeted; nobody listens to it yet. Raises Unavailable."""
        loop = asyncio.get_running_loop()
        pause_s = FIRST_PAUSE_S
        begun_at = loop.time()
        while True:
            try:
                return await self._attempt()
            except (OSError, ShoestringError) as error:
                if loop.time() - begun_at + pause_s > self._patience_s(error):
                    raise away(self.path, error, was_reached=self.greeting is not None) from error
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def _attempt(self) -> Connection:
        hello: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        connection = await connect(self.path, partial(_heard, hello), partial(_hung_up, hello))
        try:
            connection.write(encode_request(HELLO_ID, "hello", {"client": self._name}))
            async with asyncio.timeout(HELLO_S):
                greeting = _greeting(await hello)
            if connection.is_lost:
                # Between the answer and now nobody was told.
                raise ConnectionResetError("it closed the connection after it said hello")
        except BaseException:
            connection.close()
            raise
        self.greeting = greeting
        return connection

    def _patience_s(self, error: Exception) -> float:
        """Return how long to go on trying after `error`; see the module's text."""
        final = isinstance(error, ShoestringError) and not isinstance(error, Refused)
        if final or isinstance(error, PermissionError):
            return 0.0  # waiting changes nothing
        absent = isinstance(error, FileNotFoundError | ConnectionRefusedError)
        return self._connect_timeout if absent and self.greeting is None else self._reconnect_timeout


def _heard(hello: asyncio.Future[Response], response: Response) -> None:
    # An error without an id is about the connection: that it is one too many, for example.
    if not hello.done():
        hello.set_result(response)


def _hung_up(hello: asyncio.Future[Response], error: Exception | None) -> None:
    if not hello.done():
        hello.set_exception(error or ConnectionResetError("it closed the connection before it said hello"))


def _greeting(response: Response) -> Greeting:
    if response.error is not None:
        raise response.error
    try:
        return _decode_greeting(response.result or b"")
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError(f"its greeting is not one this version understands: {error}") from error
