"""The requests of one connection, from a line to its answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final

import msgspec

from shoestring.api.commands import HELLO, VERBS, Answer, Daemon, Verb
from shoestring.api.feeds import Feeds
from shoestring.api.memory import ClientMemory, Id, Memories
from shoestring.core.errors import Refused, RemoteProtocolError, ShoestringError, Unavailable, UnknownVerb, UsageError
from shoestring.core.wire import encode_error, encode_result, parse_request
from shoestring.log import log

#: `job.wait`s one connection may keep waiting: each is an asyncio task of about 2 KB.
WAITS_MAX: Final = 1_000


class _Call:
    """One request on its way to its answer."""

    __slots__ = ("id", "memory", "method", "params", "size", "verb")

    def __init__(
        self, request_id: Id | None, method: str, verb: Verb | None, memory: ClientMemory | None, size: int
    ) -> None:
        self.id = request_id
        self.method = method
        self.verb = verb
        self.memory = memory  # of the client, if the answer is to be remembered
        self.size = size
        self.params: object = None  # decoded


class Calls:
    """Calls the verbs a peer asks for, and gives each answer to `send` when it is there.

    `settled` is called after each answer that had to be waited for: there is room for another request then.
    """

    def __init__(
        self,
        daemon: Daemon,
        verbs: Mapping[str, Verb],
        memories: Memories,
        feeds: Feeds,
        uid: int,
        send: Callable[[bytes], None],
        settled: Callable[[], None],
    ) -> None:
        self.unanswered = 0
        self.unanswered_bytes = 0
        self._daemon = daemon
        self._verbs = verbs
        self._memories = memories
        self._feeds = feeds
        self._uid = uid
        self._send = send
        self._on_settled = settled
        self._memory: ClientMemory | None = None
        self._waits: set[asyncio.Future[object]] = set()
        self._pending: set[asyncio.Future[object]] = set()  # the loop itself keeps only weak references

    def close(self) -> None:
        """End what only waits. What changes something goes on; the client will ask for its answer elsewhere."""
        if self._memory is not None and self._memory.send == self._send:
            self._memory.send = None
            self._feeds.left(self._memory)
        for waiting in self._waits:
            waiting.cancel()

    def take(self, line: bytes) -> None:
        """Begin what one line asks for."""
        try:
            request = parse_request(line)
        except RemoteProtocolError as error:
            # The line ended where it should, so the next one can be read: this is no reason to close.
            self._send(encode_error(None, error))
            return
        verb = self._verbs.get(request.method)
        memory = self._memory if verb is not None and verb.changes and request.id is not None else None
        if memory is not None and request.id is not None and not memory.begin(request.id):
            return
        call = _Call(request.id, request.method, verb, memory, len(line))
        try:
            answer = self._begin(call, request.params)
        except Exception as error:  # noqa: BLE001 - see _fail
            self._fail(call, error)
        else:
            self._follow(call, answer)

    def _begin(self, call: _Call, params: msgspec.Raw) -> Answer:
        verb = call.verb
        if verb is None:
            raise self._unknown(call.method)
        call.params = decoded = verb.decode(params)
        if verb is HELLO:
            self._memory = self._memories.of(self._uid, decoded.client)
            self._memory.send = self._send
            self._feeds.came(self._memory)
        elif verb.waits and len(self._waits) >= WAITS_MAX:
            raise Refused(f"this connection already waits for {WAITS_MAX} jobs; ask again later", retry_after=1.0)
        return verb.call(self._daemon, decoded)

    def _follow(self, call: _Call, answer: Answer) -> None:
        """Answer when `answer` is there, which may be now."""
        if not isinstance(answer, Awaitable):
            self._succeed(call, answer)
            return
        future = asyncio.ensure_future(answer)
        if call.verb is not None and call.verb.waits:
            self._waits.add(future)
            future.add_done_callback(partial(self._waited, call))
            return
        self.unanswered += 1
        self.unanswered_bytes += call.size
        if future.done():
            self._settled(call, future)
        else:
            self._pending.add(future)
            future.add_done_callback(partial(self._settled, call))

    def _waited(self, call: _Call, future: asyncio.Future[object]) -> None:
        self._waits.discard(future)
        if not future.cancelled():
            self._finish_call(call, future)

    def _settled(self, call: _Call, future: asyncio.Future[object]) -> None:
        self._pending.discard(future)
        self.unanswered -= 1
        self.unanswered_bytes -= call.size
        self._finish_call(call, future)
        self._on_settled()

    def _finish_call(self, call: _Call, future: asyncio.Future[object]) -> None:
        try:
            result = future.result()
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - see _fail
            self._fail(call, error)
        else:
            self._succeed(call, result)

    def _succeed(self, call: _Call, result: object) -> None:
        try:
            assert call.verb is not None
            frame = encode_result(call.id, call.verb.render(result))
            if call.verb.feeds is not None and self._memory is not None:
                self._note_feeding(call.verb.feeds(call.params, result), self._memory)
        except Exception as error:  # noqa: BLE001 - see _fail
            self._fail(call, error)
        else:
            self._reply(call, frame, keep=True)

    def _note_feeding(self, feeding: tuple[int, bool] | None, client: ClientMemory) -> None:
        if feeding is not None:
            self._feeds.note(client, feeding[0], is_open=feeding[1])
            if client.send is None:
                self._feeds.left(client)  # its connection was lost while this was done

    def _fail(self, call: _Call, error: BaseException) -> None:
        """Answer a call that failed, whatever it failed with: its peer must not wait for ever because of a bug."""
        if isinstance(error, ShoestringError):
            told = error
        elif isinstance(error, msgspec.ValidationError):
            told = UsageError(f"{call.method}: {error}. Nothing was done")
        else:
            log.error("request_failed", method=call.method, error=error)
            told = ShoestringError(f"the daemon failed unexpectedly ({type(error).__name__}); its log says where")
        self._reply(call, encode_error(call.id, told), keep=not isinstance(told, Unavailable))

    def _unknown(self, method: str) -> UnknownVerb:
        if method in VERBS:
            return UnknownVerb(f"{method!r} is offered on the admin socket only")
        return UnknownVerb(f"there is no verb {method!r} in shoestring {self._daemon.version}")

    def _reply(self, call: _Call, frame: bytes, *, keep: bool) -> None:
        if call.id is None:
            return  # a notification: nobody asked for an answer
        if call.memory is None:
            self._send(frame)
        else:
            call.memory.settle(call.id, frame, keep=keep)
