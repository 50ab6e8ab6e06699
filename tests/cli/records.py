"""Records as a daemon in the middle of its day would answer them."""

from __future__ import annotations

import msgspec

from shoestring.core.model import HandlerView, JobState, Ledger, Progress, QueueView, Status, TaskState, TaskView

NOW_MS = 1_790_000_000_000


def a_queue(name: str = "mail", **changes: object) -> QueueView:
    ledger = Ledger(accepted=1_250, completed=1_000, discarded=3)
    made = QueueView(
        queue=name, ready=240, delayed=5, running=2, parked=0, waiting=0, ledger=ledger, pending=ledger.pending
    )
    return msgspec.structs.replace(made, **changes)


def a_handler(name: str = "send_mail", queue: str = "mail") -> HandlerView:
    return HandlerView(handler=name, queue=queue, running=2, completed=1_000, failed=12, abandoned=0)


def a_status(**changes: object) -> Status:
    """A daemon in the middle of its day."""
    made = Status(
        version="0.1.0",
        pid=812,
        generation=7,
        started_at_ms=NOW_MS - 274_300_000,
        now_ms=NOW_MS,
        database="/srv/app/shoestring.db",
        database_bytes=13_002_342,
        wal_bytes=8_388_608,
        rss_bytes=30_000_000,
        pending=247,
        running=2,
        slots=100,
        delayed=5,
        accepting=True,
        commits=410,
        fsyncs=97,
        ledger=Ledger(accepted=1_250, completed=1_000, discarded=3),
        queues=[a_queue()],
        handlers=[a_handler()],
        parked=[],
        jobs_open=0,
        abandoned=0,
        discarded_kept=0,
        suspects=0,
        waiting_handlers={},
    )
    return msgspec.structs.replace(made, **changes)


def a_task(task_id: int = 12, **changes: object) -> TaskView:
    made = TaskView(
        task_id=task_id,
        state=TaskState.READY,
        handler="send_mail",
        queue="mail",
        user="alice",
        priority=0,
        attempt=1,
        enqueued_at_ms=NOW_MS - 245_000,
        body='{"to":"a@b.example"}',
    )
    return msgspec.structs.replace(made, **changes)


def a_job(job_id: int = 3, **changes: object) -> Progress:
    made = Progress(
        job_id=job_id,
        state=JobState.SEALED,
        handler="block",
        queue="block",
        user="alice",
        total=5_000,
        accepted=5_000,
        done=1_200,
        failed=0,
        cancelled=0,
        pending=3_800,
        created_at_ms=NOW_MS - 60_000,
        version=9,
    )
    return msgspec.structs.replace(made, **changes)
