"""Fan-out from the producer's side: any iterable becomes a job's items, a slice at a time.

A slice is encoded and appended under a running number, so that an append that is sent again after a lost connection
stores nothing twice. A few appends are on their way at once; when they are, the iterable is not read further. So
a fan-out of millions takes the memory of a few slices, in the producer and in the daemon.

Whatever goes wrong in the middle, the job is sealed with the reason: the items that were stored run, and the counts
add up. An open job would wait for ever for items that nobody sends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import msgspec

from shoestring.app import options
from shoestring.app.gateway import Gateway
from shoestring.app.job import Job
from shoestring.app.source import Pages
from shoestring.core.errors import ArgumentError, Refused, ShoestringError, SourceFailed
from shoestring.core.model import Entry, JobId, JobSpec
from shoestring.core.signature import Arguments

if TYPE_CHECKING:
    from shoestring.app.handler import Handler

SLICE_ITEMS: Final = 5_000
SLICE_BYTES: Final = 256 * 1024
#: The first slice is small, because how large an item is, is not known yet.
FIRST_SLICE_ITEMS: Final = 200
#: What an append may grow to when the slice before it misled; below the smallest frame a daemon is likely to take.
FRAME_BYTES: Final = 1024 * 1024
APPENDS_IN_FLIGHT: Final = 4
#: How long a fan-out that failed or was cancelled tries to say so to the daemon.
SEAL_S: Final = 5.0
CHUNK_MAX: Final = 10_000


async def fan_out(
    handler: Handler[..., Any],
    items: Iterable[object] | AsyncIterable[object] | Pages[object],
    *,
    chunk: int,
    every: timedelta | None,
    then: Entry | None,
    args: Mapping[str, object] | None,
) -> Job:
    """Open a job and, unless the daemon reads its items itself, send them; see `Handler.fan_out`."""
    stream = await _opened(handler, job_spec(handler, items, chunk=chunk, every=every, then=then, args=args))
    if not isinstance(items, Pages):
        try:
            if isinstance(items, AsyncIterable):
                async for item in items:
                    if stream.add(item):
                        await stream.send()
            else:
                for item in items:
                    if stream.add(item):
                        await stream.send()
            await stream.finish()
        except BaseException as error:
            await stream.fail(error)
            raise
    return Job(handler.app, stream.job_id)


def fan_out_sync(
    handler: Handler[..., Any],
    items: Iterable[object] | Pages[object],
    *,
    chunk: int,
    every: timedelta | None,
    then: Entry | None,
    args: Mapping[str, object] | None,
) -> Job:
    """Do as `fan_out`; the items are read in the calling thread, where a database cursor may belong."""
    run = handler.app.run_sync
    spec = job_spec(handler, items, chunk=chunk, every=every, then=then, args=args)
    stream = run(_opened(handler, spec))
    if not isinstance(items, Pages):
        try:
            for item in items:
                if stream.add(item):
                    run(stream.send())
            run(stream.finish())
        except BaseException as error:
            run(stream.fail(error))
            raise
    return Job(handler.app, stream.job_id)


def job_spec(
    handler: Handler[..., Any],
    items: object,
    *,
    chunk: int,
    every: timedelta | None,
    then: Entry | None,
    args: Mapping[str, object] | None,
) -> JobSpec:
    """Check what a fan-out was asked to be. Raises ArgumentError, and nothing has been stored then."""
    pages = items if isinstance(items, Pages) else None
    if pages is None and (isinstance(items, str | bytes) or not isinstance(items, Iterable | AsyncIterable)):
        raise ArgumentError(
            f"items is {items!r}; give an iterable or async iterable of items, or the pages of a source, as in "
            "followers.of(account=...)"
        )
    if then is not None and not isinstance(then, Entry):
        raise ArgumentError(f"then is {then!r}; give the call of a handler, as in then=report.call(...)")
    if every is not None and pages is None:
        raise ArgumentError("every= spaces the pages of a source; these items are no source's. Leave it out")
    return JobSpec(
        handler=handler.spec.name,
        body=msgspec.Raw(handler.spec.arguments.encode_shared(_shared(handler, args or {}, pages))),
        options=handler.chosen,
        chunk=options.positive("chunk", chunk, CHUNK_MAX),
        every_ms=0 if every is None else options.milliseconds("every", every),
        source=None if pages is None else pages.call,
        then=then,
    )


def _shared(
    handler: Handler[..., Any], args: Mapping[str, object], pages: Pages[object] | None
) -> Mapping[str, object]:
    """Return the arguments all items share: those given, then the source's of the same name."""
    if pages is None:
        return args
    _, *others = inspect.signature(handler.spec.fn).parameters.values()
    takes = {parameter.name for parameter in others if parameter.kind not in _VARIADIC}
    return {name: value for name, value in pages.arguments.items() if name in takes} | dict(args)


_VARIADIC: Final = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


async def _opened(handler: Handler[..., Any], spec: JobSpec) -> Stream:
    gateway = handler.app.gateway()
    return Stream(handler.spec.arguments, gateway, await gateway.open_job(spec), spec.chunk)


class Stream:
    """The items on their way into one open job."""

    def __init__(self, arguments: Arguments, gateway: Gateway, job_id: JobId, chunk: int) -> None:
        self.job_id = job_id
        self._arguments = arguments
        self._gateway = gateway
        self._items: list[object] = []  # taken, not sent yet
        self._chunk = chunk
        self._slice_items = self._whole_chunks(FIRST_SLICE_ITEMS)
        self._position = 0  # of the first of those, counted from 0
        self._seq = 0
        self._appends: deque[asyncio.Future[int]] = deque()
        self._broken = False

    def add(self, item: object) -> bool:
        """Take one item; True if it is time to `send`."""
        self._items.append(item)
        return len(self._items) >= self._slice_items

    async def send(self) -> None:
        """Append what was taken; wait for an earlier append if too many are on their way.

        Raises ArgumentError naming the first item that does not fit, after the items before it were appended.
        """
        items, self._items = self._items, []
        self._broken = True  # until this slice is through
        try:
            encoded = self._arguments.encode_items(items)
        except ArgumentError as error:
            good = int(getattr(error, "index", 0))
            if good:
                await self._append(items[:good], self._arguments.encode_items(items[:good]))
            raise
        await self._append(items, encoded)
        self._broken = False

    async def finish(self) -> None:
        """Append the rest and seal the job."""
        if self._items:
            await self.send()
        self._broken = True
        while self._appends:
            await self._appends.popleft()
        await self._gateway.seal_job(self.job_id)

    async def fail(self, error: BaseException) -> None:
        """Keep what was taken before `error`, and seal the job with the reason.

        Raises SourceFailed from an error. Returns after a cancellation or an interrupt, which the caller raises again.
        """
        reason = f"stopped at item {self._position + len(self._items):,}: {type(error).__name__}: {error}"
        stored = 0
        try:
            async with asyncio.timeout(SEAL_S):
                if not self._broken and self._items:
                    await self.send()
                answers = await asyncio.gather(*self._appends, return_exceptions=True)
                stored = max((answer for answer in answers if isinstance(answer, int)), default=0)
                stored = (await self._gateway.seal_job(self.job_id, reason)).accepted
        except (ShoestringError, TimeoutError) as unsealed:
            reason += f" (the job is still open, for it could not be sealed either: {unsealed})"
        if isinstance(error, Refused) and stored == 0:
            raise error  # as with a single task: nothing is stored, and it says when to come back
        if isinstance(error, Exception):
            raise SourceFailed(
                f"job {self.job_id} {reason}. {stored:,} items are stored and will run; its `then` will not. "
                "Fan out the rest as another job",
                job_id=self.job_id,
                stored=stored,
            ) from error

    def _whole_chunks(self, items: int) -> int:
        """Return about `items`, such that no chunk of a slice but the last slice's is smaller than it could be."""
        return max(1, items // self._chunk) * self._chunk

    async def _append(self, items: Sequence[object], encoded: bytes) -> None:
        """Append encoded items, in halves if they turn out too large for one frame."""
        if len(encoded) > FRAME_BYTES and len(items) > 1:
            half = len(items) // 2
            for part in (items[:half], items[half:]):
                await self._append(part, self._arguments.encode_items(part))
            return
        self._slice_items = self._whole_chunks(min(SLICE_ITEMS, SLICE_BYTES * len(items) // len(encoded)))
        while len(self._appends) >= APPENDS_IN_FLIGHT:
            await self._appends.popleft()
        self._appends.append(
            asyncio.ensure_future(self._gateway.append_items(self.job_id, self._seq, msgspec.Raw(encoded)))
        )
        self._seq += 1
        self._position += len(items)
