"""The queue as everything above sees it: what producers, people and the daemon may ask of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

import shoestring
from shoestring.config import Config
from shoestring.core.clock import Clock
from shoestring.core.errors import NotFound, ShoestringError
from shoestring.core.lanes import Lane, Scheduler, parked_lanes
from shoestring.core.lifecycle import Event, State
from shoestring.core.model import (
    Entry,
    HandlerView,
    JobId,
    JobSpec,
    JobState,
    LaneView,
    Ledger,
    Options,
    Progress,
    QueueView,
    Status,
    TaskState,
    TaskView,
    priority_of,
)
from shoestring.core.outcome import Outcome
from shoestring.engine.books import Books
from shoestring.engine.chunks import ChunkRunner
from shoestring.engine.committer import Answers, Committer, Haste, Losers, Syncer
from shoestring.engine.completer import Completer
from shoestring.engine.dispatcher import Dispatcher
from shoestring.engine.intake import Intake
from shoestring.engine.jobs import Jobs
from shoestring.engine.puller import Puller
from shoestring.engine.records import Job, Task
from shoestring.engine.register import Register
from shoestring.engine.registry import Registry
from shoestring.engine.runner import CRASHES_ALONE, Runner, Stop
from shoestring.engine.sweeper import Sweeper
from shoestring.store import views
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
        rng: Random,
        config: Config,
        registry: Registry,
        register: Register | None,
        database: Path,
    ) -> None:
        run, store = config.run, config.store
        self._db = db
        self._clock = clock
        self._config = config
        self._database = database
        self._started_at_ms = clock.now_ms()
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
            prefetch=run.prefetch, timer_heap=run.timer_heap, wake_runner=lambda: self.runner.wake(),
            end_unrunnable=self.end_unrunnable,
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
            job_drained=lambda job: self.fan_outs.drained(job), lane_sank=self._lane_sank,
        )  # fmt: skip
        self.runner = Runner(
            clock=clock, rng=rng, scheduler=self.scheduler, committer=self.committer, completer=self.completer, register=register,
            slots=run.slots, threads=run.threads, abandon_after_s=run.abandon_after_s,
            error_chars_max=config.limits.error_chars_max, feed=self.dispatcher.feed, mark_started=self._mark_started,
            end_unrunnable=self.end_unrunnable, chunks=lambda runner: ChunkRunner(runner=runner, books=self.books),
        )  # fmt: skip
        self.intake = Intake(
            db=db,
            clock=clock,
            books=self.books,
            committer=self.committer,
            limits=config.limits,
            offer=self.dispatcher.offer,
        )
        self.sweeper = Sweeper(
            db=db, clock=clock, books=self.books, committer=self.committer, owned=self.owned,
            discarded_max=store.discarded_max, discarded_days=store.discarded_days,
        )  # fmt: skip
        self.fan_outs = Jobs(
            db=db, clock=clock, books=self.books, committer=self.committer, intake=self.intake, limits=config.limits,
            wake_puller=self.puller.wake, stop_job=self._stop_job,
        )  # fmt: skip
        self.puller.jobs = self.fan_outs
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
        """Start nothing any more; what runs goes on. Nothing new is accepted."""
        self.intake.closed = True
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
        self._check_space()
        if self._idle is not None:
            self._idle.set()

    def _check_space(self) -> None:
        """Stop accepting below the reserve, and start again well above it. Looked at once a second, after commits."""
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

    def _lane_sank(self, job: Job) -> None:
        if job.spec.source is not None and job.state is JobState.OPEN and not job.pulling:
            self.puller.wake()

    def _stop_job(self, job: Job) -> None:
        for slot in self.runner.running():
            if slot.runs is not None and slot.runs.job == job.id:
                self.runner.stop_call(slot, Stop.CANCELLED)
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

    async def progress(self, job_id: int) -> Progress:
        return await self.fan_outs.progress(job_id)

    async def wait_job(self, job_id: int, *, version: int, timeout_s: float) -> Progress:
        return await self.fan_outs.wait(job_id, version=version, timeout_s=timeout_s)

    async def cancel_job(self, job_id: int) -> Progress:
        return await self.fan_outs.cancel(job_id)

    # -- single tasks ---------------------------------------------------------------------------------------------

    async def task(self, task_id: int) -> TaskView:
        """Return a task that is stored or running; completed ones are not kept."""
        if (owned := self.owned.get(task_id)) is not None and not self._has_ended(task_id):
            return self._view(owned)
        found = await self._db.view(views.find_task, task_id)
        if found is None:
            raise NotFound(f"there is no task {task_id}. Completed tasks are not kept.")
        return self._overlay(found)

    async def cancel_task(self, task_id: int) -> TaskView:
        """Cancel a task wherever it stands; NotFound if it ended already."""
        self.dispatcher.doomed.add(task_id)  # from here on it is not taken into memory behind our back
        try:
            view = await self.task(task_id)
            if view.state is TaskState.DISCARDED:
                raise NotFound(f"task {task_id} was discarded; there is nothing to cancel.")
            task = self.owned.get(task_id)
            if task is None:
                await self.committer.flush()
                task = self.owned.get(task_id)
            if task is not None:
                self._cancel_owned(task)
            else:
                await self._cancel_stored(task_id)
            await self.committer.flush()
        finally:
            self.dispatcher.doomed.discard(task_id)
        return view

    def _cancel_owned(self, task: Task) -> None:
        for slot in self.runner.running():
            if slot.runs is task:
                self.runner.stop_call(slot, Stop.CANCELLED)
                return
        if self._has_ended(task.id):
            return
        task.lane.window.remove({task.rank})
        self.completer.apply(task, Outcome(Event.CANCEL), state=State.READY)

    async def _cancel_stored(self, task_id: int) -> None:
        found = await self._db.read(views.find_stored, task_id)
        if found is None:
            raise NotFound(f"task {task_id} ended a moment ago.")
        lane = self.books.lanes_by_id[found.lane]
        gathering = self.committer.gathering
        if found.due_at_ms is not None:
            gathering.batch.delayed_gone.append((found.due_at_ms, task_id))
            lane.delayed -= 1
        else:
            gathering.batch.ready_gone.append((found.lane, found.rank))
        lane.ledger.cancelled += found.left
        gathering.lanes.add(lane)
        if found.unique is not None:
            gathering.batch.uniques_gone.append(found.unique)
        if found.job is not None:
            gathering.batch.chunks_gone.append(task_id)
            gathering.batch.progress_gone.append(task_id)
            if (job := self.books.jobs.get(found.job)) is not None:
                job.cancelled += found.left
                self.completer.changed(job)
        self.committer.want(Haste.NOW)

    def _has_ended(self, task_id: int) -> bool:
        return task_id in self.committer.gathering.ended

    def _view(self, task: Task) -> TaskView:
        running = any(slot.runs is task for slot in self.runner.running())
        return TaskView(
            task_id=task.id, state=TaskState.RUNNING if running else TaskState.READY, handler=task.handler.name,
            queue=task.lane.queue.name, user=task.lane.user, priority=priority_of(task.rank), attempt=task.attempt,
            enqueued_at_ms=task.enqueued_at_ms, job_id=task.job, items=task.items,
            body=task.body[:1_000].decode(errors="replace"),
        )  # fmt: skip

    def _overlay(self, view: TaskView) -> TaskView:
        """Say what the file does not know: what runs, and what waits for its handler."""
        if view.state is not TaskState.READY:
            return view
        if any(slot.runs is not None and slot.runs.id == view.task_id for slot in self.runner.running()):
            return msgspec.structs.replace(view, state=TaskState.RUNNING)
        if view.handler not in self.books.registry.handlers:
            return msgspec.structs.replace(view, state=TaskState.WAITING)
        return view

    async def replay(
        self,
        *,
        task_ids: Sequence[int] = (),
        handler: str | None = None,
        queue: str | None = None,
        all: bool = False,
    ) -> int:
        """Enqueue discarded tasks again as new ones; returns how many. An item of a job runs as a task of its own.

        Each slice is one transaction: the discarded rows go as the new tasks come.
        """
        await self.committer.flush()
        ids = list(task_ids) if task_ids else None
        if ids is None and handler is None and queue is None and not all:
            return 0
        after, count = 0, 0
        while True:
            rows = await self._db.view(views.discarded_to_replay, ids, queue, handler, after, _REPLAY_AT_ONCE)
            if not rows:
                break
            after = rows[-1].id
            await self.intake.learn_lanes(list({(row.queue, row.user) for row in rows}))
            entries = [self._as_entry(row) for row in rows]
            future = self.submit(entries)
            answers = await self._with_deletes(future, rows)
            count += sum(isinstance(answer, int) for answer in answers)
        if not count and ids is not None:
            raise NotFound(f"none of the tasks {', '.join(map(str, ids))} is among the discarded.")
        return count

    async def _with_deletes(self, future: asyncio.Future[Answers], rows: list[views.DiscardedRow]) -> Answers:
        if future.done():
            return future.result()
        # Admitted just now, in this very transaction: whether an answer is an error is known already.
        submission = self.committer.gathering.submissions[-1]
        gone = [
            row.id
            for row, answer in zip(rows, submission.answers, strict=True)
            if not isinstance(answer, ShoestringError)
        ]
        self.committer.gathering.batch.discarded_gone += gone
        answers = await future
        self.books.discarded_kept -= len(gone)
        return answers

    def _as_entry(self, row: views.DiscardedRow) -> Entry:
        body = row.body.encode()
        spec = self.books.registry.handlers.get(row.handler)
        if row.item is not None and spec is not None and spec.arguments.item_name is not None:
            item = f"[{row.item}]" if spec.batch else row.item
            name = msgspec.json.encode(spec.arguments.item_name).decode()
            rest = row.body.strip()[1:]
            body = f"{{{name}:{item}{'' if rest == '}' else ','}{rest}".encode()
        options = Options(user=row.user, queue=row.queue, priority=priority_of(row.rank))
        return Entry(row.handler, msgspec.Raw(body), options)

    # -- lists ----------------------------------------------------------------------------------------------------

    async def tasks(
        self, *, queue: str | None = None, user: str | None = None, handler: str | None = None, state: TaskState | None = None,
        limit: int = 100,
    ) -> list[TaskView]:  # fmt: skip
        """List stored and running tasks, those that run first coming first."""
        if state is TaskState.DISCARDED:
            return await self.discarded(queue=queue, handler=handler, limit=limit)
        if state is TaskState.RUNNING:
            running = [self._view(slot.runs) for slot in self.runner.running() if slot.runs is not None]
            wanted = {"queue": queue, "user": user, "handler": handler}
            return [
                view for view in running
                if all(value is None or getattr(view, name) == value for name, value in wanted.items())
            ][:limit]  # fmt: skip
        found = await self._db.view(views.list_tasks, queue, user, handler, state, limit)
        shown = [self._overlay(view) for view in found]
        return shown if state is None else [view for view in shown if view.state is state]

    async def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Progress]:
        """List jobs, the latest first; those under way as they stand now."""
        found = await self._db.view(views.list_jobs, state, limit)
        return [self.books.jobs[each.job_id].progress() if each.job_id in self.books.jobs else each for each in found]

    async def discarded(
        self, *, handler: str | None = None, queue: str | None = None, limit: int = 100
    ) -> list[TaskView]:
        return await self._db.view(views.list_discarded, queue, handler, limit)

    # -- status ---------------------------------------------------------------------------------------------------

    def status(self) -> Status:
        books, now_ms = self.books, self._clock.now_ms()
        database_bytes, wal_bytes = self._db.file_bytes()
        queues = [self._queue_view(name, now_ms) for name in sorted({*books.queues, *books.rest})]
        waiting: dict[str, int] = {}
        for lane in books.lanes.values():
            for name, count in lane.waiting.items():
                waiting[name] = waiting.get(name, 0) + count
        ledger = Ledger()
        for view in queues:
            for field in msgspec.structs.fields(Ledger):
                setattr(ledger, field.name, getattr(ledger, field.name) + getattr(view.ledger, field.name))
        return Status(
            version=shoestring.__version__, pid=os.getpid(), generation=books.generation, started_at_ms=self._started_at_ms,
            now_ms=now_ms, database=str(self._database), database_bytes=database_bytes, wal_bytes=wal_bytes,
            rss_bytes=_rss_bytes(), pending=ledger.pending, running=self.scheduler.running, slots=self._config.run.slots,
            delayed=sum(lane.delayed for lane in books.lanes.values()),
            accepting=self.intake.no_space is None and not self.committer.disk_is_full and not self.intake.closed,
            commits=self.committer.commits, fsyncs=self.syncer.syncs, ledger=ledger, queues=queues,
            handlers=[self._handler_view(name) for name in sorted({*books.handlers, *books.registry.handlers})],
            parked=[self._lane_view(lane) for lane in parked_lanes(iter(books.lanes.values()), now_ms)],
            jobs_open=sum(not job.is_finished for job in books.jobs.values()), abandoned=self.runner.abandoned,
            discarded_kept=books.discarded_kept, suspects=self.suspects, waiting_handlers=waiting,
        )  # fmt: skip

    def _queue_view(self, name: str, now_ms: int) -> QueueView:
        queue = self.books.queue(name)
        lanes = [lane for lane in self.books.lanes.values() if lane.queue is queue]
        ledger = self.books.ledger_of(queue)
        delayed = sum(lane.delayed for lane in lanes)
        return QueueView(
            queue=name, ready=max(0, ledger.pending - delayed - queue.running), delayed=delayed, running=queue.running,
            parked=len(parked_lanes(iter(lanes), now_ms)), waiting=sum(sum(lane.waiting.values()) for lane in lanes),
            ledger=ledger, pending=ledger.pending,
        )  # fmt: skip

    def _handler_view(self, name: str) -> HandlerView:
        handler, spec = self.books.handlers.get(name), self.books.registry.handlers.get(name)
        if handler is None:
            assert spec is not None
            return HandlerView(handler=name, queue=spec.queue, running=0, completed=0, failed=0, abandoned=0)
        return HandlerView(
            handler=name, queue=spec.queue if spec is not None else "", declared=spec is not None,
            running=handler.gate.running, completed=handler.completed, failed=handler.failed,
            abandoned=handler.abandoned,
        )  # fmt: skip

    def _lane_view(self, lane: Lane) -> LaneView:
        parks = [park for park in (lane.park, lane.queue.park) if park is not None]
        park = max(parks, key=lambda each: each.until_ms, default=None)
        return LaneView(
            queue=lane.queue.name, user=lane.user, pending=lane.ledger.pending, running=lane.running,
            parked_until_ms=park.until_ms if park else None, parked_reason=park.reason if park else None,
        )  # fmt: skip


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
