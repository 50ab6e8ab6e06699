"""Tidies up behind the others: rows of cancelled jobs, old discarded tasks and jobs. Bounded work, none when idle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from shoestring.core.clock import Clock
from shoestring.core.errors import DiskFull
from shoestring.core.lanes import Lane
from shoestring.core.model import JobState, id_of
from shoestring.engine.books import Books
from shoestring.engine.committer import Committer, Haste
from shoestring.engine.records import Job, Task
from shoestring.store.db import Db
from shoestring.store.sweeping import prune_discarded, prune_jobs, purge_job

_SLICE: Final = 2_000
#: Things are pruned after this many commits, at the start, and when more is discarded than is kept.
_PRUNE_EVERY_COMMITS: Final = 20_000
_DAY_MS: Final = 86_400_000


class Sweeper:
    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        books: Books,
        committer: Committer,
        owned: dict[int, Task],
        discarded_max: int,
        discarded_days: int,
        purged: Callable[[Lane], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._books = books
        self._committer = committer
        self._owned = owned
        self._discarded_max = discarded_max
        self._kept_ms = discarded_days * _DAY_MS
        self._purged = purged
        self._wake = asyncio.Event()
        self._purges: deque[Job] = deque()
        self._prune_at_commit = 0

    def open(self) -> None:
        """Take up the purges that the last generation left."""
        for job in self._books.jobs.values():
            if job.state is JobState.CANCELLED and job.purge:
                self.purge(job)
        self._wake.set()

    def purge(self, job: Job) -> None:
        """Delete the rows of a cancelled job's chunks, behind everything else."""
        self._purges.append(job)
        self._wake.set()

    def committed(self) -> None:
        """Look whether there is something to prune."""
        if (
            self._committer.commits >= self._prune_at_commit
            or self._books.discarded_kept > self._discarded_max + _SLICE
        ):
            self._wake.set()

    async def run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._purges:
                    await self._purge(self._purges[0])
                    self._purges.popleft()
                await self._prune()
            except DiskFull:
                self._wake.set()
                await asyncio.sleep(5)  # deletes need room in the WAL; the committer is making some

    async def _purge(self, job: Job) -> None:
        # What is in memory goes first: those rows are deleted by their owners.
        window = job.lane.window
        held = {rank for rank, task in window.heap if isinstance(task, Task) and task.job == job.id}
        window.remove(held)
        for rank in held:
            self._owned.pop(id_of(rank), None)
        self._purged(job.lane)  # what is behind them must not wait for the deletes
        await self._committer.flush()
        after: int | None = -1
        while after is not None:
            after = await self._db.write(purge_job, int(job.id), int(job.lane.id), after, _SLICE)
        job.purge = False
        self._committer.gathering.jobs.add(job)
        self._committer.want(Haste.LAZY)
        self._books.jobs.pop(job.id, None)
        self._purged(job.lane)

    async def _prune(self) -> None:
        if (
            self._committer.commits < self._prune_at_commit
            and self._books.discarded_kept <= self._discarded_max + _SLICE
        ):
            return
        self._prune_at_commit = self._committer.commits + _PRUNE_EVERY_COMMITS
        before_ms = self._clock.now_ms() - self._kept_ms
        discarded = partial(prune_discarded, before_ms=before_ms, kept_max=self._discarded_max, limit=_SLICE)
        while (count := await self._db.write(discarded)) > 0:
            self._books.discarded_kept -= count
        while await self._db.write(partial(prune_jobs, before_ms=before_ms, limit=_SLICE)) > 0:
            pass
