"""One client's connection: frames in, answers out, and never more of either than memory is set aside for.

An `asyncio.Protocol`, not a stream: no coroutine runs per connection and none per request, so that a silent peer
costs its socket and a busy one its frames. Bytes arrive, the framer cuts them into lines, each line is a verb that is
called at once; what it returns is answered when it is done, in any order.

Reading stops, and with it the peer's sending, while too many requests are unanswered, while their frames take too
much memory, or while the peer does not read its answers. A frame that is not completed in time ends its connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, cast

import msgspec

from shoestring.api.commands import HELLO, VERBS, Answer, Daemon, Verb
from shoestring.api.memory import ClientMemory, Id, Memories
from shoestring.core.errors import Refused, RemoteProtocolError, ShoestringError, UnknownVerb, UsageError
from shoestring.core.wire import Framer, encode_error, encode_result, parse_request

#: Requests a connection may leave unanswered before it is read no further; twice a client's window, so that one
#: that keeps its window never meets it.
UNANSWERED_MAX: Final = 128
#: `job.wait`s one connection may keep waiting: each is an asyncio task of about 2 KB.
WAITS_MAX: Final = 1_000
#: How long a frame may take from its first byte to its last.
FRAME_TIMEOUT_S: Final = 30.0


class Connection(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(
        self,
        daemon: Daemon,
        verbs: Mapping[str, Verb],
        memories: Memories,
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self.uid = -1
        self._daemon = daemon
        self._verbs = verbs
        self._memories = memories
        self._opened = opened
        self._closed = closed
        self._memory: ClientMemory | None = None
        self._framer = Framer(daemon.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._unanswered = 0
        self._unanswered_bytes = 0
        self._unread_answers = False  # the peer does not read what is written
        self._held = False  # reading is paused
        self._closing = False
        self._out: list[bytes] = []
        self._flush_due = False
        self._waits: set[asyncio.Future[object]] = set()
        self._pending: set[asyncio.Future[object]] = set()  # the loop itself keeps only weak references
        self._frame_timer: asyncio.TimerHandle | None = None

    # -- What asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's, they only have the same methods.
        self._transport = cast("asyncio.Transport", transport)
        self.uid = _peer_uid(self._transport)
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        try:
            lines = self._framer.feed(data)
        except RemoteProtocolError as error:
            self.refuse(error)
            return
        self._lines.extend(lines)
        self._watch_partial_frame(completed=bool(lines))
        self._advance()

    def pause_writing(self) -> None:
        self._unread_answers = True
        self._hold_or_go_on()

    def resume_writing(self) -> None:
        self._unread_answers = False
        self._hold_or_go_on()

    def connection_lost(self, _: Exception | None) -> None:
        self._closing = True
        self._transport = None
        self._lines.clear()
        self._out.clear()
        if self._memory is not None and self._memory.send == self._send:
            self._memory.send = None
        for waiting in self._waits:
            waiting.cancel()
        if self._frame_timer is not None:
            self._frame_timer.cancel()
        self._closed(self)

    # -- What the server calls ---------------------------------------------------------------------------------

    def refuse(self, error: ShoestringError) -> None:
        """Tell the peer why this connection is of no more use, and close it."""
        self._send(encode_error(None, error))
        self._lines.clear()
        self.finish()

    def finish(self) -> None:
        """Take no more requests; close once those taken are answered. Waits are left to the client to ask again."""
        self._closing = True
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()
        self._close_if_answered()

    def abort(self) -> None:
        """Close at once; what was not answered, the client sends again."""
        if self._transport is not None:
            self._transport.abort()

    # -- Requests ----------------------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take the lines that came, as far as the bounds allow, and write their immediate answers at once."""
        flush_due, self._flush_due = self._flush_due, True
        while self._lines and not self._full():
            self._take(self._lines.popleft())
        self._flush_due = flush_due
        if not flush_due:
            self._flush()
        self._hold_or_go_on()

    def _take(self, line: bytes) -> None:
        try:
            request = parse_request(line)
        except RemoteProtocolError as error:
            # The line ended where it should, so the next one can be read: this is no reason to close.
            self._send(encode_error(None, error))
            return
        verb = self._verbs.get(request.method)
        memory = self._memory if verb is not None and verb.changes else None
        if memory is not None and request.id is not None and not memory.begin(request.id):
            return
        try:
            if verb is None:
                raise self._unknown(request.method)
            params = verb.decode(request.params)
            if verb is HELLO:
                self._memory = self._memories.of(self.uid, params.client)
                self._memory.send = self._send
            elif verb.waits and len(self._waits) >= WAITS_MAX:
                raise Refused(f"this connection already waits for {WAITS_MAX} jobs", retry_after=1.0)
            answer = verb.call(self._daemon, params)
        except msgspec.ValidationError as error:
            self._reply(request.id, memory, encode_error(request.id, UsageError(f"{request.method}: {error}")))
        except ShoestringError as error:
            self._reply(request.id, memory, encode_error(request.id, error))
        else:
            self._follow(request.id, verb, answer, memory, len(line))

    def _follow(
        self, request_id: Id | None, verb: Verb, answer: Answer, memory: ClientMemory | None, size: int
    ) -> None:
        """Answer when `answer` is there, which may be now."""
        if not isinstance(answer, Awaitable):
            self._reply(request_id, memory, encode_result(request_id, verb.render(answer)))
            return
        future = asyncio.ensure_future(answer)
        if verb.waits:
            self._waits.add(future)
            future.add_done_callback(partial(self._waited, request_id, verb))
            return
        self._unanswered += 1
        self._unanswered_bytes += size
        self._pending.add(future)
        if future.done():
            self._settled(request_id, verb, memory, size, future)
        else:
            future.add_done_callback(partial(self._settled, request_id, verb, memory, size))

    def _waited(self, request_id: Id | None, verb: Verb, future: asyncio.Future[object]) -> None:
        self._waits.discard(future)
        if not future.cancelled():
            self._reply(request_id, None, self._outcome(request_id, verb, future))

    def _settled(
        self,
        request_id: Id | None,
        verb: Verb,
        memory: ClientMemory | None,
        size: int,
        future: asyncio.Future[object],
    ) -> None:
        self._pending.discard(future)
        self._unanswered -= 1
        self._unanswered_bytes -= size
        self._reply(request_id, memory, self._outcome(request_id, verb, future))
        if self._closing:
            self._close_if_answered()
        elif self._held:
            self._advance()

    def _outcome(self, request_id: Id | None, verb: Verb, future: asyncio.Future[object]) -> bytes:
        try:
            return encode_result(request_id, verb.render(future.result()))
        except ShoestringError as error:
            return encode_error(request_id, error)
        except Exception as error:  # noqa: BLE001 - a bug of ours: the peer must not wait for ever because of it
            self._loop.call_exception_handler({"message": "a request failed unexpectedly", "exception": error})
            message = f"the daemon failed unexpectedly ({type(error).__name__}); its log has the traceback"
            return encode_error(request_id, ShoestringError(message))

    def _unknown(self, method: str) -> UnknownVerb:
        if method in VERBS:
            return UnknownVerb(f"{method!r} is offered on the admin socket only")
        return UnknownVerb(f"there is no verb {method!r} in shoestring {self._daemon.version}")

    # -- Answers -----------------------------------------------------------------------------------------------

    def _reply(self, request_id: Id | None, memory: ClientMemory | None, frame: bytes) -> None:
        if request_id is None:
            return  # a notification: nobody asked for an answer
        if memory is None:
            self._send(frame)
        else:
            memory.settle(request_id, frame)

    def _send(self, frame: bytes) -> None:
        """Write `frame`: now if nothing else is on its way, else together with what this turn of the loop brings."""
        if self._transport is None:
            return
        self._out.append(frame)
        if self._flush_due:
            return
        if self._unanswered:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def _flush(self) -> None:
        self._flush_due = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    # -- Bounds ------------------------------------------------------------------------------------------------

    def _full(self) -> bool:
        return (
            self._unanswered >= UNANSWERED_MAX
            or self._unanswered_bytes >= 2 * self._daemon.frame_bytes_max
            or self._unread_answers
        )

    def _hold_or_go_on(self) -> None:
        if self._transport is None or self._closing:
            return
        hold = bool(self._lines) or self._full()
        if hold and not self._held:
            self._transport.pause_reading()
        elif self._held and not hold:
            self._transport.resume_reading()
        self._held = hold

    def _close_if_answered(self) -> None:
        if self._unanswered == 0 and self._transport is not None:
            self._flush()
            self._transport.close()

    def _watch_partial_frame(self, completed: bool) -> None:
        """Give the frame that has begun its time; a line that was completed ended the one before."""
        if self._frame_timer is not None and (completed or not self._framer.pending):
            self._frame_timer.cancel()
            self._frame_timer = None
        if self._framer.pending and self._frame_timer is None:
            self._frame_timer = self._loop.call_later(FRAME_TIMEOUT_S, self._frame_timed_out)

    def _frame_timed_out(self) -> None:
        self._frame_timer = None
        if self._held:
            # It is this end that does not read.
            self._watch_partial_frame(completed=True)
        else:
            self.refuse(RemoteProtocolError(f"a frame was not completed within {FRAME_TIMEOUT_S:g} s; not read"))


def _peer_uid(transport: asyncio.Transport) -> int:
    """Return whose process is at the other end, as the kernel knows it; -1 if this is no Unix socket."""
    peer = transport.get_extra_info("socket")
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
