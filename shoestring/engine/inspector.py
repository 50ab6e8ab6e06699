"""What people are shown: single tasks, lists, and the status page. Reads only.

The file does not know what runs, for a claim is not written; what it says is completed here from memory.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

import shoestring
from shoestring.config import Config
from shoestring.core.clock import Clock
from shoestring.core.errors import NotFound
from shoestring.core.lanes import Lane, parked_lanes
from shoestring.core.model import (
    HandlerView,
    JobState,
    LaneView,
    Ledger,
    Progress,
    QueueView,
    Status,
    TaskState,
    TaskView,
    priority_of,
)
from shoestring.engine.records import Task
from shoestring.store import views
from shoestring.store.db import Db

if TYPE_CHECKING:
    from shoestring.engine.engine import Engine


class Inspector:
    def __init__(self, *, engine: Engine, db: Db, clock: Clock, config: Config) -> None:
        self._engine = engine
        self._db = db
        self._clock = clock
        self._config = config
        self._started_at_ms = clock.now_ms()

    async def task(self, task_id: int) -> TaskView:
        """Return a task that is stored or running; completed ones are not kept."""
        if (owned := self._engine.owned.get(task_id)) is not None and not owned.ended:
            return self._view(owned)
        found = await self._db.view(views.find_task, task_id)
        if found is None:
            raise NotFound(f"there is no task {task_id}. Completed tasks are not kept.")
        return self._overlay(found)

    async def tasks(
        self,
        *,
        queue: str | None = None,
        user: str | None = None,
        handler: str | None = None,
        state: TaskState | None = None,
        limit: int = 100,
    ) -> list[TaskView]:
        """List stored and running tasks, those that run first coming first."""
        if state is TaskState.DISCARDED:
            return await self.discarded(queue=queue, handler=handler, limit=limit)
        if state is TaskState.RUNNING:
            running = [self._view(slot.runs) for slot in self._engine.runner.running() if slot.runs is not None]
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
        return [
            self._engine.books.jobs[each.job_id].progress() if each.job_id in self._engine.books.jobs else each
            for each in found
        ]

    async def discarded(
        self, *, handler: str | None = None, queue: str | None = None, limit: int = 100
    ) -> list[TaskView]:
        return await self._db.view(views.list_discarded, queue, handler, limit)

    def status(self) -> Status:
        engine, books, now_ms = self._engine, self._engine.books, self._clock.now_ms()
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
            version=shoestring.__version__, pid=os.getpid(), generation=books.generation,
            started_at_ms=self._started_at_ms, now_ms=now_ms, database=str(self._config.database),
            database_bytes=database_bytes, wal_bytes=wal_bytes,
            rss_bytes=_rss_bytes(), pending=ledger.pending, running=engine.scheduler.running,
            slots=self._config.run.slots,
            delayed=sum(lane.delayed for lane in books.lanes.values()),
            accepting=engine.intake.is_open,
            commits=engine.committer.commits, fsyncs=engine.syncer.syncs, ledger=ledger, queues=queues,
            handlers=[self._handler_view(name) for name in sorted({*books.handlers, *books.registry.handlers})],
            parked=[self._lane_view(lane) for lane in parked_lanes(iter(books.lanes.values()), now_ms)],
            jobs_open=sum(not job.is_finished for job in books.jobs.values()), abandoned=engine.runner.abandoned,
            discarded_kept=books.discarded_kept, suspects=engine.suspects, waiting_handlers=waiting,
        )  # fmt: skip

    def _queue_view(self, name: str, now_ms: int) -> QueueView:
        queue = self._engine.books.queue(name)
        lanes = [lane for lane in self._engine.books.lanes.values() if lane.queue is queue]
        ledger = self._engine.books.ledger_of(queue)
        delayed = sum(lane.delayed for lane in lanes)
        return QueueView(
            queue=name, ready=max(0, ledger.pending - delayed - queue.running), delayed=delayed, running=queue.running,
            parked=len(parked_lanes(iter(lanes), now_ms)), waiting=sum(sum(lane.waiting.values()) for lane in lanes),
            ledger=ledger, pending=ledger.pending,
        )  # fmt: skip

    def _handler_view(self, name: str) -> HandlerView:
        handler, spec = self._engine.books.handlers.get(name), self._engine.books.registry.handlers.get(name)
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

    def _view(self, task: Task) -> TaskView:
        running = any(slot.runs is task for slot in self._engine.runner.running())
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
        if any(slot.runs is not None and slot.runs.id == view.task_id for slot in self._engine.runner.running()):
            return msgspec.structs.replace(view, state=TaskState.RUNNING)
        if view.handler not in self._engine.books.registry.handlers:
            return msgspec.structs.replace(view, state=TaskState.WAITING)
        return view


def _rss_bytes() -> int:
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGESIZE")
