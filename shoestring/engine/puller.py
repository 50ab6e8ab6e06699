"""Pulls the pages of sources, only when the lane has room for them.

A page is pulled when the lane holds fewer items than its low-water mark, the spacing has passed and nothing holds the
lane. Its items and the next cursor go into one transaction: after a crash the page is there with its cursor moved, or
it is pulled again. Nothing of a page that was not pulled is in memory.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any, Final, cast

from shoestring.core.clock import Clock, Dice
from shoestring.core.errors import Refused, ShoestringError, UsageError
from shoestring.core.lanes import Lane, Park, blocked_until_ms
from shoestring.core.lifecycle import Event
from shoestring.core.model import JobState, Page
from shoestring.core.outcome import Outcome, outcome_of
from shoestring.engine.books import Books
from shoestring.engine.committer import Committer, Haste
from shoestring.engine.jobs import Jobs
from shoestring.engine.records import Job
from shoestring.engine.registry import SourceSpec

#: Pages pulled at once, over all jobs.
_AT_ONCE: Final = 8
#: Where the disk refuses a page, it is pulled again after this.
_REFUSED_MS: Final = 5_000


class Puller:
    def __init__(self, *, clock: Clock, rng: Dice, books: Books, committer: Committer, error_chars_max: int) -> None:
        self._clock = clock
        self._rng = rng
        self._books = books
        self._committer = committer
        self._error_chars_max = error_chars_max
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._pulls: set[asyncio.Task[None]] = set()
        self._full: dict[Lane, None] = {}  # lanes with a job that waits for room
        self.jobs: Jobs | None = None
        self.quiet = False
        self.failed: asyncio.Future[None] | None = None

    def wake(self) -> None:
        self._wake.set()

    def committed(self) -> None:
        """Look again if a lane that was too full for a page has room now, whatever it was full of."""
        if any(lane.ledger.pending < lane.queue.config.low_water for lane in self._full):
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not self.quiet:
                self._look()

    def _look(self) -> None:
        now_ms = self._clock.now_ms()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._full.clear()
        first_ms: int | None = None
        for job in self._books.jobs.values():
            if job.spec.source is None or job.state is not JobState.OPEN or job.pulling:
                continue
            if job.lane.ledger.pending >= job.lane.queue.config.low_water:
                self._full[job.lane] = None
                continue
            at_ms = max(job.next_pull_at_ms, blocked_until_ms(job.lane, now_ms))
            if at_ms > now_ms:
                first_ms = at_ms if first_ms is None else min(first_ms, at_ms)
            elif len(self._pulls) < _AT_ONCE:
                self._start(job)
        if first_ms is not None:
            self._timer = asyncio.get_running_loop().call_later((first_ms - now_ms) / 1000, self._wake.set)

    def _start(self, job: Job) -> None:
        job.pulling = True
        pull = asyncio.get_running_loop().create_task(self._pull(job), name=f"pull-{job.id}")
        self._pulls.add(pull)
        pull.add_done_callback(lambda done: self._ended(job, done))

    def _ended(self, job: Job, done: asyncio.Task[None]) -> None:
        self._pulls.discard(done)
        job.pulling = False
        if not done.cancelled() and (error := done.exception()) is not None:
            if self.failed is not None and not self.failed.done():
                self.failed.set_exception(error)
            return
        self._wake.set()

    async def _pull(self, job: Job) -> None:
        assert job.spec.source is not None
        source = self._books.registry.sources.get(job.spec.source.name)
        if source is None or job.handler.spec is None:
            job.next_pull_at_ms = self._clock.now_ms() + 60_000  # waits for a start with the app that declares it
            return
        try:
            page = await self._call(source, job)
            items = job.handler.spec.arguments.encode_items(page.items)
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            if isinstance(error, GeneratorExit | KeyboardInterrupt):
                raise
            if job.state is JobState.OPEN:
                self._failed(source, job, error)
            return
        if job.state is JobState.OPEN:
            await self._store(job, page, items)

    async def _call(self, source: SourceSpec, job: Job) -> Page[object]:
        assert job.spec.source is not None
        args, kwargs = source.arguments.decode(job.spec.source.body)
        call = cast("Awaitable[Any]", source.fn(job.cursor, *args, **kwargs))
        try:
            page = await asyncio.wait_for(call, source.timeout.hard)
        except asyncio.CancelledError as error:
            if self.quiet:
                raise
            raise RuntimeError("the source cancelled itself") from error
        if not isinstance(page, Page) or not (page.next is None or isinstance(page.next, str)):
            raise TypeError(
                f"source {source.name} returned {type(page).__name__}, not a Page with a text (or no) cursor"
            )
        return page

    async def _store(self, job: Job, page: Page[object], items: bytes) -> None:
        before = (job.cursor, job.next_pull_at_ms, job.state)
        job.cursor, job.pulls_failed = page.next, 0
        job.next_pull_at_ms = self._clock.now_ms() + job.spec.every_ms
        if page.next is None:
            job.state = JobState.SEALED

        def undo() -> None:
            job.cursor, job.next_pull_at_ms = before[:2]
            if job.state is not JobState.CANCELLED:
                job.state = before[2]

        assert self.jobs is not None and job.spec.source is not None
        try:
            await self.jobs.add_items(job, items, undo)
        except UsageError as error:  # too large, or more than a bucket holds: it would be so each time
            undo()
            if job.state is JobState.OPEN:
                self.jobs.seal_job(job, f"a page of source {job.spec.source.name} cannot be stored: {error}")
            return
        except ShoestringError as error:
            undo()
            wait_ms = math.ceil(error.retry_after * 1_000) if isinstance(error, Refused) else _REFUSED_MS
            job.next_pull_at_ms = self._clock.now_ms() + wait_ms
            return
        if job.state is JobState.SEALED and job.pending == 0:
            self.jobs.drained(job)

    def _failed(self, source: SourceSpec, job: Job, error: BaseException) -> None:
        """Write down what a failed pull came to: later again, a park, or the end of the source."""
        assert self.jobs is not None
        draw = self._rng.random()
        outcome: Outcome = outcome_of(
            error, source.retry, attempt=job.pulls_failed + 1, draw=draw, chars_max=self._error_chars_max
        )
        job.next_pull_at_ms = self._clock.now_ms() + outcome.delay_ms
        if outcome.scope is not None:
            self._books.park(job.lane, outcome.scope, Park(job.next_pull_at_ms, outcome.error))
        elif outcome.event is Event.DISCARD:
            self.jobs.seal_job(job, f"source {source.name} failed: {outcome.error}")
            return
        elif outcome.event is Event.RETRY:
            job.pulls_failed += 1
        self._committer.gathering.jobs.add(job)
        self._committer.want(Haste.SOON)

    async def close(self) -> None:
        """End the pulls under way; what they did not store is pulled again."""
        self.quiet = True
        for pull in list(self._pulls):
            pull.cancel()
        await asyncio.gather(*self._pulls, return_exceptions=True)
