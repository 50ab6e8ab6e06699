"""How single enqueues share frames, and many are cut into frames.

Each enqueue waits for its own answer, but not for its own round trip. What is enqueued in one turn of the event loop
goes out in one frame, and while enough frames are on their way, what comes meanwhile is gathered for the next: one
producer gets the shortest latency, a hundred get one frame and one commit for all of them (the idea of Nagle's
algorithm, without its timer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from shoestring.client.link import Answer, Link
from shoestring.core.errors import PayloadTooLarge, RemoteProtocolError, ShoestringError, rebuild
from shoestring.core.model import Duplicate, Entry

#: What became of an entry that was taken.
Stored = int | Duplicate

#: One frame's entries: few enough that the daemon's loop is not held for longer than 20 ms by one of them.
SLICE_ENTRIES: Final = 5_000
SLICE_BYTES: Final = 1024 * 1024
#: Frames of single enqueues on their way at once: while the daemon works on one, the next is filled.
FRAMES_IN_FLIGHT: Final = 2


class Failure(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: dict[str, object] = msgspec.field(default_factory=dict)


class OneResult(msgspec.Struct, frozen=True):
    """What is not simply an id."""

    duplicate_of: int | None = None
    error: Failure | None = None


class Results(msgspec.Struct, frozen=True):
    """The answer to `enqueue`: ids in a row as two numbers, or one result per entry."""

    first: int = 0
    count: int = 0
    results: list[int | OneResult] = []


_decode_results: Final = msgspec.json.Decoder(Results).decode


def slices(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """Cut `entries` into what one frame and one commit take: 5,000 of them or 1 MiB of bodies.

    >>> entry = Entry("mail", msgspec.Raw(b"{}"))
    >>> [len(part) for part in slices([entry] * 12_000)]
    [5000, 5000, 2000]
    """
    part: list[Entry] = []
    size = 0
    for entry in entries:
        length = len(entry.body)
        if part and (len(part) >= SLICE_ENTRIES or size + length > SLICE_BYTES):
            yield part
            part, size = [], 0
        part.append(entry)
        size += length
    if part:
        yield part


class Pipeline:
    """Turns enqueues into frames on a link."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._entries: list[Entry] = []
        self._futures: list[asyncio.Future[Stored]] = []
        self._flush_due = False
        self._frames = 0  # on their way
        self._is_alone = True  # the last frame had one entry: there may be but one producer
        #: Slices that came while the connection was made are sent in the order they came in.
        self._turn = asyncio.Lock()

    def submit(self, entry: Entry) -> asyncio.Future[Stored]:
        """Enqueue one entry together with what else is enqueued now; the future has its id, or its error."""
        future: asyncio.Future[Stored] = self._loop.create_future()
        self._entries.append(entry)
        self._futures.append(future)
        if not self._flush_due:
            if self._is_alone and not self._frames:
                self._flush()
            else:
                self._flush_due = True
                self._loop.call_soon(self._flush)
        return future

    async def submit_many(self, entries: Sequence[Entry]) -> list[Stored | ShoestringError]:
        """Enqueue one slice of entries in one frame; return what became of each, in order.

        Raises Unavailable if the daemon cannot be reached, or the error that stopped the whole frame.
        """
        answers: list[tuple[int, asyncio.Future[Answer]]] = []
        async with self._turn:
            if self._link.greeting is None:
                await self._link.reach()
            for part, request_id, frame in self._framed(entries):
                future: asyncio.Future[Answer] = self._loop.create_future()
                self._link.send(request_id, frame, partial(_hand_over, future), changes=True)
                answers.append((len(part), future))
        results: list[Stored | ShoestringError] = []
        for count, future in answers:
            answer = await future
            if isinstance(answer, PayloadTooLarge):
                results += [answer] * count
            elif isinstance(answer, ShoestringError):
                raise answer
            else:
                results += _results(answer, count)
        return results

    def _flush(self) -> None:
        """Send what was gathered, unless enough is on its way: then the next answer calls again."""
        self._flush_due = False
        if self._link.greeting is None:
            if self._entries:
                self._flush_due = True  # by `_reached`, together with what comes until then
                self._link.reach().add_done_callback(self._reached)
            return
        while self._entries and self._frames < FRAMES_IN_FLIGHT:
            part = next(slices(self._entries))
            waiting = self._futures[: len(part)]
            del self._entries[: len(part)], self._futures[: len(part)]
            self._is_alone = len(part) == 1
            begin = 0
            for entries, request_id, frame in self._framed(part):
                self._frames += 1
                told = partial(self._answered, waiting[begin : begin + len(entries)])
                self._link.send(request_id, frame, told, changes=True)
                begin += len(entries)

    def _reached(self, reached: asyncio.Future[None]) -> None:
        self._flush_due = False
        error = None if reached.cancelled() else reached.exception()
        if error is None:
            self._flush()
            return
        waiting, self._futures = self._futures, []
        self._entries.clear()
        _fail(waiting, error)

    def _answered(self, waiting: list[asyncio.Future[Stored]], answer: Answer) -> None:
        self._frames -= 1
        try:
            if isinstance(answer, ShoestringError):
                raise answer
            results = _results(answer, len(waiting))
        except ShoestringError as error:
            _fail(waiting, error)
        else:
            for future, result in zip(waiting, results, strict=True):
                if future.done():
                    continue  # its producer was cancelled and waits no more
                if isinstance(result, ShoestringError):
                    future.set_exception(result)
                else:
                    future.set_result(result)
        if self._entries and not self._flush_due:
            self._flush()

    def _framed(self, entries: Sequence[Entry]) -> Iterator[tuple[Sequence[Entry], int, bytes]]:
        """Encode `entries` as one frame, or as more if their options make it too large for the daemon."""
        greeting = self._link.greeting
        assert greeting is not None
        request_id, frame = self._link.encode("enqueue", {"tasks": entries})
        if len(frame) <= greeting.frame_bytes_max or len(entries) == 1:
            yield entries, request_id, frame
        else:
            half = len(entries) // 2
            yield from self._framed(entries[:half])
            yield from self._framed(entries[half:])


def _hand_over(future: asyncio.Future[Answer], answer: Answer) -> None:
    if not future.done():
        future.set_result(answer)


def _results(answer: msgspec.Raw, count: int) -> Sequence[Stored | ShoestringError]:
    found = _decode_results(answer)
    if found.count == count:
        return range(found.first, found.first + count)
    if len(found.results) != count:
        raise RemoteProtocolError(f"the daemon answered {len(found.results)} results for {count} tasks")
    return [result if isinstance(result, int) else _result(result) for result in found.results]


def _result(result: OneResult) -> Stored | ShoestringError:
    if result.error is not None:
        return rebuild(result.error.code, result.error.message, result.error.data)
    return Duplicate(result.duplicate_of or 0)


def _fail(waiting: list[asyncio.Future[Stored]], error: BaseException) -> None:
    for future in waiting:
        if not future.done():
            # Each waiter gets its own: an exception raised in several places mixes their tracebacks.
            own = rebuild(error.code, str(error), error.data()) if isinstance(error, ShoestringError) else error
            own.__cause__ = error.__cause__
            future.set_exception(own)
