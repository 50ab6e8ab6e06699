"""Requests that outlive their connection.

Theory of operation. Every request has an id that is never used twice, its frame, and who is told its answer. A
connection begins with `hello`, which names this client and learns what the daemon allows. When a connection is lost,
the requests without an answer stay; as soon as the daemon can be reached again their frames are sent again, byte for
byte. The daemon remembers what it last answered each client, so within one generation of the daemon a frame that
is sent twice is done once. Across a restart that memory is gone: a change whose answer was lost on the way may then
be done twice (a task enqueued with `unique=` is not).

At most `window` changes are on their way, which is how many answers the daemon remembers; the rest wait here, in
order. Nothing runs while nothing is asked: a lost connection without open requests is only noted.

A daemon that is stopping answers `Unavailable`: nothing was done. That is not passed on; the frame goes to the daemon
that comes after it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from shoestring.client.absence import closed, hung_up, too_large
from shoestring.client.connection import Connection
from shoestring.client.dialing import FIRST_PAUSE_S, HELLO_ID, Dialer, Greeting
from shoestring.core.errors import LocalProtocolError, ProtocolError, ShoestringError, Unavailable
from shoestring.core.wire import Response, encode_request

#: Before trying again after a daemon that answered that it is stopping: its socket is still there for a moment.
TURNED_AWAY_PAUSE_S: Final = 0.05

#: Connections in a row that may be lost without an answer before the requests fail.
FRUITLESS_MAX: Final = 8

Answer = msgspec.Raw | ShoestringError
#: Called once, with the answer or with the error that came instead. It must not raise.
Told = Callable[[Answer], None]


class Request:
    """One request from its making to its answer."""

    __slots__ = ("changes", "frame", "id", "told")

    def __init__(self, request_id: int, frame: bytes, told: Told, *, changes: bool) -> None:
        self.id = request_id
        self.frame = frame
        self.told = told
        self.changes = changes


class Link:
    """One client's requests, over as many connections as it takes. It belongs to the running event loop."""

    def __init__(self, dialer: Dialer, *, turned_away_timeout: float) -> None:
        self._dialer = dialer
        self._turned_away_timeout = turned_away_timeout
        self._loop = asyncio.get_running_loop()
        self._last_id = HELLO_ID
        self._unanswered: dict[int, Request] = {}
        self._changes = 0  # of those, the changes
        self._queue: deque[Request] = deque()
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._turned_away_at: float | None = None
        self._fruitless = 0  # connections in a row that were lost without an answer
        self._closed = False

    @property
    def greeting(self) -> Greeting | None:
        """What the daemon said of itself last; None until it was reached."""
        return self._dialer.greeting

    def request(self, method: str, params: object, *, changes: bool = False) -> asyncio.Future[msgspec.Raw]:
        """Send a request now, or when the daemon can be reached; return the future of its answer.

        Cancelling the future does not take the request back. Encoding errors are raised at once.
        """
        future: asyncio.Future[msgspec.Raw] = self._loop.create_future()
        self.send(*self.encode(method, params), partial(_settle, future), changes=changes)
        return future

    def encode(self, method: str, params: object) -> tuple[int, bytes]:
        """Return a new request's id and frame, for a caller that must know the frame's size before it is sent."""
        self._last_id += 1
        return self._last_id, encode_request(self._last_id, method, params)

    def send(self, request_id: int, frame: bytes, told: Told, *, changes: bool) -> None:
        """Send an encoded request. `told` is called straight from the arrival of the answer.

        A future would hand the answer on in the next turn of the loop: on asyncio's own loop that is a system call,
        and the one producer that awaits each enqueue pays it each time.
        """
        if self._closed:
            told(closed(self._dialer.path))
            return
        request = Request(request_id, frame, told, changes=changes)
        if changes:
            self._queue.append(request)
        else:
            self._unanswered[request_id] = request
            if self._connection is not None:
                self._connection.write(frame)
        self._pump()

    def reach(self) -> asyncio.Future[None]:
        """Return a future that is done when the daemon has been greeted, or failed with Unavailable."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._connection is not None:
            future.set_result(None)
        elif self._closed:
            future.set_exception(closed(self._dialer.path))
        else:
            self._connect().add_done_callback(partial(_copy, future))
        return future

    async def aclose(self) -> None:
        """Close. Requests without an answer fail with Unavailable; they may have been done."""
        self._closed = True
        connecting, self._connecting = self._connecting, None
        if connecting is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            # asyncio closes the descriptor in the next turn of the loop; a loop that ends before it warns.
            await asyncio.sleep(0)
        self._fail_all(closed(self._dialer.path))

    # -- Requests and answers ----------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Send what the window allows; connect first if there is anything to send."""
        connection, greeting = self._connection, self._dialer.greeting
        if connection is None or greeting is None:
            if self._queue or self._unanswered:
                self._connect()
            return
        while self._queue and self._changes < greeting.window:
            request = self._queue.popleft()
            if len(request.frame) > greeting.frame_bytes_max:
                # The daemon would close the connection on it, and the others' requests with it.
                request.told(too_large(request.frame, greeting.frame_bytes_max))
                continue
            self._unanswered[request.id] = request
            self._changes += 1
            connection.write(request.frame)

    def _answered(self, response: Response) -> None:
        if response.id is None:
            # Something that was sent was not understood. Which request it was cannot be told, and sending all of
            # them again would end the same way.
            told = f"the daemon at {self._dialer.path} could not read what it was sent: {response.error}"
            self._fail_all(LocalProtocolError(told))
            return
        if isinstance(response.error, Unavailable) and self._come_back_later():
            return
        request = self._unanswered.pop(response.id, None) if isinstance(response.id, int) else None
        if request is None:
            return  # its first answer came before the connection was lost, and this is the second
        if request.changes:
            self._changes -= 1
            if self._queue:
                self._pump()
        self._fruitless = 0
        if response.error is None:
            self._turned_away_at = None
        request.told(_content(response))

    def _come_back_later(self) -> bool:
        """Leave a daemon that is stopping, to send again what has no answer; False if that has lasted too long."""
        now = self._loop.time()
        if self._turned_away_at is None:
            self._turned_away_at = now
        if self._closed or now - self._turned_away_at > self._turned_away_timeout:
            return False
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            self._connect()
        return True

    def _lost(self, error: Exception | None) -> None:
        self._connection = None
        self._fruitless += 1
        if isinstance(error, ProtocolError):
            self._fail_all(error)
        elif self._fruitless >= FRUITLESS_MAX:
            # Perhaps what is sent is what ends the daemon each time; it must not go on for ever.
            self._fruitless = 0
            self._fail_all(hung_up(self._dialer.path, FRUITLESS_MAX))
        elif not self._closed:
            self._pump()

    def _fail_all(self, error: ShoestringError) -> None:
        failed = [*self._unanswered.values(), *self._queue]
        self._unanswered.clear()
        self._queue.clear()
        self._changes = 0
        for request in failed:
            # One exception object per waiter: raising the same one in several places mixes their tracebacks.
            own = type(error)(str(error))
            own.__cause__ = error.__cause__
            request.told(own)

    # -- Connecting --------------------------------------------------------------------------------------------

    def _connect(self) -> asyncio.Task[None]:
        if self._connecting is None:
            self._connecting = self._loop.create_task(self._reconnect(), name="shoestring-connect")
            # Its error has been told to every request by then; nobody may be waiting for the attempt itself.
            self._connecting.add_done_callback(_retrieve)
        return self._connecting

    async def _reconnect(self) -> None:
        """Connect and send again what has no answer. Raises Unavailable, also to every open request."""
        if self._turned_away_at is not None:
            await asyncio.sleep(TURNED_AWAY_PAUSE_S)
        elif self._fruitless > 1:
            await asyncio.sleep(FIRST_PAUSE_S * self._fruitless)
        try:
            connection = await self._dialer.dial()
        except Unavailable as unavailable:
            self._connecting = None
            self._fail_all(unavailable)
            raise
        connection.listen(self._answered, self._lost)
        self._connection, self._connecting = connection, None
        for request in self._unanswered.values():
            connection.write(request.frame)
        self._pump()


def _content(response: Response) -> Answer:
    if response.error is not None:
        return response.error
    return response.result if response.result is not None else msgspec.Raw(b"null")


def _settle(future: asyncio.Future[msgspec.Raw], answer: Answer) -> None:
    if future.done():
        return  # nobody waits any more
    if isinstance(answer, ShoestringError):
        future.set_exception(answer)
    else:
        future.set_result(answer)


def _retrieve(finished: asyncio.Task[None]) -> None:
    if not finished.cancelled():
        finished.exception()


def _copy(future: asyncio.Future[None], finished: asyncio.Task[None]) -> None:
    if future.done():
        return
    if finished.cancelled():
        future.cancel()
    elif (error := finished.exception()) is not None:
        future.set_exception(error)
    else:
        future.set_result(None)
