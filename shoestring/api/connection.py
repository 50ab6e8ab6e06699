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
from collections.abc import Callable
from typing import Final, cast

from shoestring.api.calls import Calls
from shoestring.api.commands import Daemon
from shoestring.core.errors import RemoteProtocolError, ShoestringError
from shoestring.core.wire import Framer, encode_error

#: Requests a connection may leave unanswered before it is read no further; twice a client's window, so that one
#: that keeps its window never meets it.
UNANSWERED_MAX: Final = 128
#: How long a refused peer has to read why and close.
LINGER_S: Final = 2.0


class Connection(asyncio.Protocol):
    """The server's end of one connection."""

    def __init__(
        self,
        daemon: Daemon,
        calls: Callable[[Connection, int], Calls],
        opened: Callable[[Connection], None],
        closed: Callable[[Connection], None],
    ) -> None:
        self._daemon = daemon
        self._make_calls = calls
        self._opened = opened
        self._closed = closed
        self._framer = Framer(daemon.frame_bytes_max)
        self._loop = asyncio.get_running_loop()
        self._lines: deque[bytes] = deque()
        self._unread_answers = False  # the peer does not read what is written
        self._held = False  # reading is paused
        self._closing = False
        self._refused = False  # what still comes is thrown away
        self._ended = False  # the peer sends no more, and waits for its answers
        self._out: list[bytes] = []
        self._flush_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # -- What asyncio calls ------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports do not inherit from asyncio's, they only have the same methods.
        self._transport = cast("asyncio.Transport", transport)
        self._calls = self._make_calls(self, _peer_uid(self._transport))
        self._opened(self)

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            lines = self._framer.feed(data)
        except RemoteProtocolError as error:
            self.refuse(error)
            return
        self._lines.extend(lines)
        self._watch_partial_frame(completed=bool(lines))
        self._advance()

    def eof_received(self) -> bool:
        """Keep the other direction open for the answers, as in `echo ... | nc -UN shoestring.sock`.

        Not for waits: a peer that has gone away for good looks the same.
        """
        self._ended = True
        self._close_if_answered()
        return not self._closing

    def pause_writing(self) -> None:
        self._unread_answers = True
        self._hold_or_go_on()

    def resume_writing(self) -> None:
        self._unread_answers = False
        self._advance()

    def connection_lost(self, _: Exception | None) -> None:
        self._closing = True
        self._transport = None
        self._lines.clear()
        self._out.clear()
        self._calls.close()
        if self._timer is not None:
            self._timer.cancel()
        self._closed(self)

    @property
    def is_refused(self) -> bool:
        """Whether it is only waited for the peer to close."""
        return self._refused

    # -- What the server and the calls ask for -----------------------------------------------------------------

    def refuse(self, error: ShoestringError) -> None:
        """Tell the peer why this connection is of no more use, and close it once the peer has.

        Closed at once, with bytes of the peer unread, the kernel would tell it "connection reset", and the peer's
        next write would fail before it has read why. So only this end's direction is closed, for a while.
        """
        if self._transport is None or self._refused:
            return
        self._closing = self._refused = True
        self._lines.clear()
        self.send(encode_error(None, error))
        self._flush()
        self._transport.write_eof()
        if self._held:
            self._held = False
            self._transport.resume_reading()
        self._restart_timer(LINGER_S, self.abort)

    def finish(self) -> None:
        """Take no more requests; close once those taken are answered. The client asks for the others elsewhere."""
        if self._refused:
            self.abort()
            return
        self._closing = True
        self._lines.clear()
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()
        self._close_if_answered()

    def abort(self) -> None:
        """Close at once; what was not answered, the client sends again."""
        if self._transport is not None:
            self._transport.abort()

    def settled(self) -> None:
        """Go on after an answer that had to be waited for: there is room for another request."""
        if self._held and not self._closing:
            self._advance()
        self._close_if_answered()

    def send(self, frame: bytes) -> None:
        """Write `frame`: now if nothing else is on its way, else together with what this turn of the loop brings."""
        if self._transport is None:
            return
        self._out.append(frame)
        if self._flush_due:
            return
        if self._calls.unanswered:
            self._flush_due = True
            self._loop.call_soon(self._flush)
        else:
            self._flush()

    def _advance(self) -> None:
        """Take the lines that came, as far as the bounds allow, and write their immediate answers at once."""
        flush_due, self._flush_due = self._flush_due, True
        while self._lines and not self._full():
            self._calls.take(self._lines.popleft())
        self._flush_due = flush_due
        if not flush_due:
            self._flush()
        self._hold_or_go_on()

    def _flush(self) -> None:
        self._flush_due = False
        if self._out and self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._out.clear()

    # -- Bounds ------------------------------------------------------------------------------------------------

    def _full(self) -> bool:
        return (
            self._calls.unanswered >= UNANSWERED_MAX
            or self._calls.unanswered_bytes >= 2 * self._daemon.frame_bytes_max
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
        """Close if this end takes no more, or the peer sends no more, and all that was taken is answered."""
        if self._transport is None or self._refused or self._calls.unanswered or self._lines:
            return
        if self._closing or self._ended:
            self._flush()
            self._transport.close()

    def _watch_partial_frame(self, completed: bool) -> None:
        """Give the frame that has begun its time; a line that was completed ended the one before."""
        if self._timer is not None and (completed or not self._framer.pending):
            self._timer.cancel()
            self._timer = None
        if self._framer.pending and self._timer is None:
            self._restart_timer(self._daemon.frame_timeout_s, self._frame_timed_out)

    def _restart_timer(self, seconds: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(seconds, then)

    def _frame_timed_out(self) -> None:
        self._timer = None
        if self._held:
            # It is this end that does not read.
            self._watch_partial_frame(completed=True)
        else:
            self.refuse(RemoteProtocolError(f"a frame was not completed within {self._daemon.frame_timeout_s:g} s"))


def _peer_uid(transport: asyncio.Transport) -> int:
    """Return whose process is at the other end, as the kernel knows it; -1 if this is no Unix socket."""
    peer = transport.get_extra_info("socket")
    _pid, uid, _gid = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return int(uid)
