"""The queue as everything above sees it: what producers, people and the daemon may ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import msgspec

from shoestring.config import Config
from shoestring.core.clock import Clock, Dice
from shoestring.core.lanes import Scheduler
from shoestring.core.lifecycle import Event, State
from shoestring.core.model import (
    Entry,
    JobId,
    JobSpec,
    JobState,
    Progress,
    Status,
    TaskState,
    TaskView,
)
from shoestring.core.outcome import Outcome
from shoestring.engine.books import Books
from shoestring.engine.calls import Stop
from shoestring.engine.chunks import ChunkRunner
from shoestring.engine.committer import Answers, Committer, Haste, Losers, Syncer
from shoestring.engine.completer import Completer
from shoestring.engine.dispatcher import Dispatcher
from shoestring.engine.inspector import Inspector
from shoestring.engine.intake import Intake
from shoestring.engine.jobs import Jobs
from shoestring.engine.journal import Journal
from shoestring.engine.operator import Operator
from shoestring.engine.puller import Puller
from shoestring.engine.records import Job, Task
from shoestring.engine.register import Register
from shoestring.engine.registry import Registry
from shoestring.engine.runner import CRASHES_ALONE, Runner
from shoestring.engine.sweeper import Sweeper
from shoestring.store.batch import Batch
from shoestring.store.db import Db
from shoestring.store.opening import Opening, mark_started

_REPLAY_AT_ONCE = 500
_MIB = 1 << 20


class Engine:
    """Wires the roles together. It starts nothing by itself: `roles` are the coroutines its owner runs."""

    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        rng: Dice,
        config: Config,
        registry: Registry,
        register: Register | None,
        database: Path,
    ) -> None:
        run, store, journal = config.run, config.store, Journal(on=config.log.tasks)
        self._db = db
        self._clock = clock
        self._config = config
        self._database = database
        self._space_checked_at = -1.0
        self._idle: asyncio.Event | None = None
        self.owned: dict[int, Task] = {}
        self.scheduler = Scheduler()
        self.syncer = Syncer(
            db=db, clock=clock, window_s=store.fsync_window_ms / 1000, checkpoint_frames=store.checkpoint_pages
        )
        self.committer = Committer(
            db=db,
            clock=clock,
            lazy_s=store.volatile_window_ms / 1000,
            syncer=self.syncer,
            owned=self.owned,
            settled=self._settled,
        )
        self.books = Books(
            registry=registry, queues=config.queues, window=min(1_000, run.prefetch), scheduler=self.scheduler,
            committer=self.committer,
        )  # fmt: skip
        self.dispatcher = Dispatcher(
            db=db, clock=clock, scheduler=self.scheduler, books=self.books, committer=self.committer, owned=self.owned,
            prefetch=run.prefetch, timer_heap=run.timer_heap, wake_runner=self._wake_runner,
            end_unrunnable=self.end_unrunnable, looked=self._looked,
        )  # fmt: skip
        self.puller = Puller(
            clock=clock,
            rng=rng,
            books=self.books,
            committer=self.committer,
            error_chars_max=config.limits.error_chars_max,
        )
        self.completer = Completer(
            clock=clock, books=self.books, committer=self.committer, put_back=self.dispatcher.put_back,
            job_drained=self._job_drained, journal=journal,
        )  # fmt: skip
        self.runner = Runner(
            clock=clock, rng=rng, scheduler=self.scheduler, committer=self.committer, completer=self.completer,
            register=register, slots=run.slots, threads=run.threads, abandon_after_s=run.abandon_after_s,
            error_chars_max=config.limits.error_chars_max, feed=self.dispatcher.feed, mark_started=self._mark_started,
            end_unrunnable=self.end_unrunnable, chunks=lambda runner: ChunkRunner(runner=runner, books=self.books),
            journal=journal,
        )  # fmt: skip
        self.intake = Intake(
            db=db,
            clock=clock,
            books=self.books,
            committer=self.committer,
            limits=config.limits,
            offer=self.dispatcher.offer,
            check_space=self._check_space,
            journal=journal,
        )
        self.sweeper = Sweeper(
            db=db, clock=clock, books=self.books, committer=self.committer, owned=self.owned,
            discarded_max=store.discarded_max, discarded_days=store.discarded_days, purged=self.dispatcher.count_again,
        )  # fmt: skip
        self.fan_outs = Jobs(
            db=db, clock=clock, books=self.books, committer=self.committer, intake=self.intake, limits=config.limits,
            wake_puller=self.puller.wake, stop_job=self._stop_job, journal=journal,
        )  # fmt: skip
        self.puller.jobs = self.fan_outs
        self._inspector = Inspector(engine=self, db=db, clock=clock, config=config)
        self._operator = Operator(engine=self, db=db)
        self.suspects = 0

    # -- life -----------------------------------------------------------------------------------------------------

    def open(self, found: Opening, *, failed: asyncio.Future[None]) -> None:
        """Start from what the file holds. `failed` gets the error of whatever dies outside `roles`."""
        self.runner.failed = self.puller.failed = self.fan_outs.failed = failed
        self.books.open(found, now_ms=self._clock.now_ms())
        self._check_space()
        for job in list(self.books.jobs.values()):
            if job.state is JobState.SEALED and job.pending == 0:
                self.fan_outs.drained(job)
        self.dispatcher.open()
        self.sweeper.open()
        self.puller.wake()

    def roles(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the permanent coroutines; each runs until cancelled, and an error in one ends the daemon."""
        return [
            self.committer.run, self.syncer.run, self.syncer.run_checkpoints, self.dispatcher.run, self.puller.run,
            self.sweeper.run,
        ]  # fmt: skip

    async def quiet(self) -> None:
        """Start nothing any more; what runs goes on, and may still enqueue."""
        self.runner.quiet = True
        await self.puller.close()

    async def drain(self, grace_s: float) -> int:
        """Wait for what runs, at most `grace_s`; then take it back. Returns how many were released."""
        if await self.runner.wait_drained(grace_s):
            return 0
        released = len(self.runner.running())
        self.runner.release_running()
        await self.runner.wait_drained(self._config.run.abandon_after_s + 1)
        return released

    async def flush(self) -> None:
        """Commit and sync everything there is to write; the last thing before the end."""
        self.intake.closed = True
        self.books.give_back_ids()
        self.committer.want(Haste.NOW)
        await self.committer.flush()
        await self.syncer.sync()

    async def wait_idle(self) -> None:
        """Return when nothing is pending any more, save what waits for a handler the app does not declare."""
        self._idle = asyncio.Event()
        while not self.is_idle():
            self._idle.clear()
            await self._idle.wait()

    def is_idle(self) -> bool:
        if any(not job.is_finished for job in self.books.jobs.values()):
            return False
        lanes = self.books.lanes.values()
        return not any(lane.ledger.pending - sum(lane.waiting.values()) for lane in lanes)

    def _settled(self, batch: Batch, losers: Losers) -> None:
        for loser in losers.values():
            lane = self.books.lanes_by_id[loser.lane]
            lane.ledger.accepted -= 1
            lane.delayed -= loser.delayed
        self.dispatcher.committed(batch)
        self.sweeper.committed()
        self.puller.committed()
        self.books.forget_idle_lanes()
        self._check_space()
        if self._idle is not None:
            self._idle.set()

    def _check_space(self) -> None:
        """Stop accepting below the reserve, and start again well above it. Looked at once a second at most."""
        if self._clock.mono() - self._space_checked_at < 1 and self._space_checked_at >= 0:
            return
        self._space_checked_at = self._clock.mono()
        free, reserve = self._db.free_bytes(), self._config.store.reserve_mib * _MIB
        if free < reserve:
            self.intake.no_space = (
                f"{free // _MIB} MiB are free beside {self._database}, less than the reserve of {reserve // _MIB} MiB"
            )
        elif free > reserve + reserve // 4:
            self.intake.no_space = None

    def end_unrunnable(self, task: Task) -> bool:
        """End a task that must not run, before it takes a slot; True if it was ended."""
        outcome = self._unrunnable(task)
        if outcome is None:
            return False
        if outcome.event is Event.CANCEL:  # its job was cancelled and counted it
            self.completer.forget_row(task)
        else:
            self.completer.apply(task, outcome, state=State.READY)
        return True

    def _unrunnable(self, task: Task) -> Outcome | None:
        extra = task.extra
        if task.job is not None:
            job = self.books.jobs.get(task.job)
            if job is None or job.state is JobState.CANCELLED:
                return Outcome(Event.CANCEL)
        if not task.body or (task.job is not None and task.chunk is None):
            return Outcome(Event.DISCARD, error="damaged: the stored arguments do not match their checksum")
        if extra.expires_at_ms is not None and extra.expires_at_ms <= self._clock.now_ms():
            return Outcome(Event.EXPIRE)
        if extra.started:
            return Outcome(Event.DISCARD, error="the daemon ended while it was running, and it must not run twice")
        if extra.crashes > CRASHES_ALONE:
            return Outcome(Event.DISCARD, error=f"the daemon died {extra.crashes} times while this task was running")
        return None

    async def _mark_started(self, task: Task) -> None:
        if not task.stored:
            await self.committer.flush()
        task.extra = msgspec.structs.replace(task.extra, started=True)
        await self._db.write(mark_started, int(task.lane.id), int(task.rank), task.extra)
        await self._db.sync()

    # The roles know each other in a circle; these close it.

    def _wake_runner(self) -> None:
        self.runner.wake()

    def _looked(self) -> None:
        if self._idle is not None:
            self._idle.set()  # what was read may all be waiting for its handler

    def _job_drained(self, job: Job) -> None:
        self.fan_outs.drained(job)

    def _stop_job(self, job: Job) -> None:
        for slot in self.runner.running():
            if slot.runs is not None and slot.runs.job == job.id:
                self.runner.calls.stop(slot, Stop.CANCELLED)
        self.sweeper.purge(job)

    # -- producers ------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Entry]) -> asyncio.Future[Answers]:
        """Admit entries now, in their order; the future is done when the slowest of their durabilities is reached.

        Its result holds, for each entry, its id, the `Duplicate` that holds its unique key, or the error that refused
        it. The future itself fails if nothing could be stored at all.
        """
        return self.intake.submit(entries)

    async def open_job(self, spec: JobSpec) -> JobId:
        return await self.fan_outs.open(spec)

    async def append_items(self, job_id: int, seq: int, items: msgspec.Raw) -> int:
        return await self.fan_outs.append(job_id, seq, items)

    async def seal_job(self, job_id: int, error: str | None = None) -> Progress:
        return await self.fan_outs.seal(job_id, error)

    def streamed_jobs(self) -> list[JobId]:
        """Return the jobs that are open for items a producer sends."""
        return [job.id for job in self.books.jobs.values() if job.state is JobState.OPEN and job.spec.source is None]

    async def progress(self, job_id: int) -> Progress:
        return await self.fan_outs.progress(job_id)

    async def wait_job(self, job_id: int, *, version: int, timeout_s: float) -> Progress:
        return await self.fan_outs.wait(job_id, version=version, timeout_s=timeout_s)

    async def cancel_job(self, job_id: int) -> Progress:
        return await self.fan_outs.cancel(job_id)

    # -- people ---------------------------------------------------------------------------------------------------

    async def task(self, task_id: int) -> TaskView:
        return await self._inspector.task(task_id)

    async def tasks(
        self,
        *,
        queue: str | None = None,
        user: str | None = None,
        handler: str | None = None,
        state: TaskState | None = None,
        limit: int = 100,
    ) -> list[TaskView]:
        return await self._inspector.tasks(queue=queue, user=user, handler=handler, state=state, limit=limit)

    async def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Progress]:
        return await self._inspector.jobs(state=state, limit=limit)

    async def discarded(
        self, *, handler: str | None = None, queue: str | None = None, limit: int = 100
    ) -> list[TaskView]:
        return await self._inspector.discarded(handler=handler, queue=queue, limit=limit)

    def status(self) -> Status:
        return self._inspector.status()

    async def cancel_task(self, task_id: int) -> TaskView:
        return await self._operator.cancel_task(task_id)

    async def replay(
        self,
        *,
        task_ids: Sequence[int] = (),
        handler: str | None = None,
        queue: str | None = None,
        all: bool = False,
    ) -> int:
        return await self._operator.replay(task_ids=task_ids, handler=handler, queue=queue, everything=all)
