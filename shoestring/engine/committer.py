"""Group commit: everything that wants to be written is gathered into one transaction at a time.

While one transaction is on its way the next gathers, so under load commits group themselves, and an idle daemon
commits a lone task at once. How soon something has to be written is its `Haste`:

    NOW      a producer waits for the answer
    SOON     outcomes: nobody waits, and what a crash loses of them is run again, so a few milliseconds of company
             are worth it (1,000 attempts a second then make 200 commits, not 1,000)
    LAZY     volatile tasks and the progress inside chunks: they wait `volatile_window_ms`, and a task that ends
             before that never touches the disk

After a commit, `Syncer` makes it durable: at once where somebody waits for that, else once per `fsync_window_ms`.
"""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from shoestring.core.clock import Clock
from shoestring.core.errors import DiskFull, ShoestringError
from shoestring.core.lanes import Lane
from shoestring.core.model import Duplicate
from shoestring.engine.records import Job, Task
from shoestring.log import log
from shoestring.store.batch import Batch, Loser, apply
from shoestring.store.db import Db
from shoestring.store.rows import Row

Answers = list[int | Duplicate | ShoestringError]
Losers = dict[int, Loser]

#: Seconds outcomes wait for company.
_SOON_S: Final = 0.005
#: Seconds between two tries to write while the disk is full.
_FULL_RETRY_S: Final = 1.0


class Haste(enum.IntEnum):
    NONE = 0
    LAZY = 1
    SOON = 2
    NOW = 3


@dataclass(slots=True)
class Submission:
    """A producer that waits for its commit."""

    future: asyncio.Future[Answers]
    answers: Answers
    durable: bool
    #: Takes back what admission counted, if the disk is full. None: nothing can be taken back, it waits for room.
    undo: Callable[[Batch], object] | None
    kept: frozenset[int] = frozenset()  # volatile tasks among the answers: stored whenever there is room

    def refuse(self, batch: Batch, error: ShoestringError) -> None:
        assert self.undo is not None
        self.undo(batch)
        if self.future.done():
            return
        if self.kept:
            self.future.set_result([
                each if each in self.kept or isinstance(each, ShoestringError) else error for each in self.answers
            ])  # fmt: skip
        else:
            self.future.set_exception(error)


@dataclass(slots=True)
class Gathering:
    """The next transaction while it is gathered on the loop."""

    batch: Batch = field(default_factory=Batch)
    lanes: set[Lane] = field(default_factory=set)
    buckets: set[Lane] = field(default_factory=set)
    jobs: set[Job] = field(default_factory=set)
    chunks: dict[int, Task] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    submissions: list[Submission] = field(default_factory=list)

    def freeze(self) -> Batch:
        """Write down the figures as they stand now and return what the thread applies."""
        batch = self.batch
        for lane in self.lanes:
            batch.lanes[lane.id] = _lane_row(lane)
            lane.is_new = False
        for lane in self.buckets:
            if (bucket := lane.bucket) is not None:
                key = (lane.queue.name, lane.user)
                batch.buckets[key] = (*key, bucket.tokens, bucket.capacity, bucket.rate, bucket.updated_at_ms)
        for job in self.jobs:
            if job.withdrawn:
                batch.jobs.pop(job.id, None)
            else:
                batch.jobs[job.id] = job.row()
        for task_id, task in self.chunks.items():
            if (chunk := task.chunk) is not None and (state := chunk.left.encode()):
                batch.progress[task_id] = (task_id, state)
                chunk.stored_progress = True
        return batch


def _lane_row(lane: Lane) -> Row:
    books = lane.ledger
    return (
        lane.id, lane.queue.name, lane.user, books.accepted, books.completed, books.discarded, books.cancelled,
        books.expired, books.dropped, lane.delayed,
    )  # fmt: skip


class Committer:
    """Gathers, writes, answers. `settled` is called with every batch that was committed."""

    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        lazy_s: float,
        syncer: Syncer,
        owned: dict[int, Task],
        settled: Callable[[Batch, Losers], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._lazy_s = lazy_s
        self._syncer = syncer
        self._owned = owned
        self._settled = settled
        self._haste = Haste.NONE
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self.gathering = Gathering()
        self.commits = 0
        self.disk_is_full = False

    def want(self, haste: Haste) -> None:
        """Have what was gathered committed; the highest haste counts."""
        if haste <= self._haste:
            return
        self._haste = haste
        self._idle.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if haste is Haste.NOW:
            self._wake.set()
        else:
            delay_s = _SOON_S if haste is Haste.SOON else self._lazy_s
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake.set)

    async def run(self) -> None:
        """Commit for ever; a storage error that cannot be waited out ends it, and with it the process."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._commit()
            if self._haste is Haste.NONE:
                self._idle.set()

    async def flush(self) -> None:
        """Return when nothing is left to commit."""
        while not self._idle.is_set():
            self.want(Haste.NOW)
            self._wake.set()
            await self._idle.wait()

    async def _commit(self) -> None:
        while True:
            gathered, self.gathering = self.gathering, Gathering()
            self._haste = Haste.NONE
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            batch = gathered.freeze()
            for task_id in batch.ready:
                if (task := self._owned.get(task_id)) is not None:
                    task.stored = True
            try:
                losers = await self._db.write(apply, batch)
            except DiskFull as error:
                await self._survive_full_disk(gathered, error)
                continue
            break
        self.commits += 1
        if self.disk_is_full:
            self.disk_is_full = False
            log.info("disk_freed")
        self._settle(gathered, losers)

    def _settle(self, gathered: Gathering, losers: Losers) -> None:
        for task_id in gathered.ended:
            del self._owned[task_id]
        self._settled(gathered.batch, losers)
        if losers:
            _name_holders(gathered.submissions, losers)
        durable = [each for each in gathered.submissions if each.durable]
        for each in gathered.submissions:
            if not each.durable and not each.future.done():
                each.future.set_result(each.answers)
        self._syncer.committed(durable)

    async def _survive_full_disk(self, gathered: Gathering, error: DiskFull) -> None:
        """Refuse what was not yet promised, keep everything else for the next try, and make what room there is."""
        if not self.disk_is_full:
            self.disk_is_full = True
            log.error("disk_filled", error=error)
        _refuse(gathered, error)
        if not await self._db.release_ballast():
            await asyncio.sleep(_FULL_RETRY_S)
        # What was admitted meanwhile goes the same way: of the slices of a job none may be stored after one was not.
        later = self.gathering
        _refuse(later, error)
        gathered.batch.absorb(later.batch)
        gathered.submissions += later.submissions
        gathered.ended += later.ended
        gathered.lanes |= later.lanes
        gathered.buckets |= later.buckets
        gathered.jobs |= later.jobs
        for task_id in later.batch.progress_gone:
            gathered.chunks.pop(task_id, None)
        gathered.chunks |= later.chunks
        # Only now, with everything in one place again, can a task end by taking its row out of the batch.
        for task_id in gathered.batch.ready:
            if (task := self._owned.get(task_id)) is not None:
                task.stored = False
        self.gathering = gathered


def _refuse(gathered: Gathering, error: DiskFull) -> None:
    """Take out of the next transaction what its producers were not promised yet."""
    for each in gathered.submissions:
        if each.undo is not None:
            each.refuse(gathered.batch, error)
    gathered.submissions = [each for each in gathered.submissions if each.undo is None]
    gathered.batch.shed_accepted()


def _name_holders(submissions: list[Submission], losers: Losers) -> None:
    for each in submissions:
        for place, answer in enumerate(each.answers):
            task_id = answer.task_id if isinstance(answer, Duplicate) else answer
            if isinstance(task_id, int) and task_id in losers:
                each.answers[place] = Duplicate(losers[task_id].holder)


class Syncer:
    """Makes commits survive a power cut, and keeps the WAL short."""

    def __init__(self, *, db: Db, clock: Clock, window_s: float, checkpoint_frames: int) -> None:
        self._db = db
        self._clock = clock
        self._window_s = window_s
        self._checkpoint_frames = checkpoint_frames
        self._dirty = asyncio.Event()
        self._urgent = asyncio.Event()
        self._long_wal = asyncio.Event()
        self._waiting: list[Submission] = []
        self._last_at = -window_s
        self.syncs = 0

    def committed(self, durable: list[Submission]) -> None:
        """Take note of a commit, and of those who wait for it to be on disk."""
        self._dirty.set()
        if durable:
            self._waiting += durable
            self._urgent.set()

    async def run(self) -> None:
        while True:
            await self._dirty.wait()
            rest_s = self._last_at + self._window_s - self._clock.mono()
            if rest_s > 0 and not self._urgent.is_set():
                try:
                    await asyncio.wait_for(self._urgent.wait(), rest_s)
                except TimeoutError:
                    pass
            await self.sync()

    async def sync(self) -> None:
        """Bring everything committed so far to the disk and answer who waited for it."""
        self._dirty.clear()
        self._urgent.clear()
        waiting, self._waiting = self._waiting, []
        await self._db.sync()
        self.syncs += 1
        self._last_at = self._clock.mono()
        for each in waiting:
            if not each.future.done():
                each.future.set_result(each.answers)
        if self._db.wal_frames() >= self._checkpoint_frames:
            self._long_wal.set()

    async def run_checkpoints(self) -> None:
        while True:
            await self._long_wal.wait()
            self._long_wal.clear()
            await self._db.checkpoint()
