"""One log line per step of every task, for finding a fault. Off by default: a line costs more than most tasks do.

Never arguments: they are the users' data. The error of an attempt is told here or, by default, kept with the task.
"""

from __future__ import annotations

from shoestring.core.lifecycle import Event
from shoestring.core.outcome import Outcome
from shoestring.engine.records import Job, Task
from shoestring.log import log


class Journal:
    """Says what happens to tasks, if it is `on`. Callers on a hot path look at `on` themselves."""

    def __init__(self, *, on: bool) -> None:
        self.on = on

    def enqueued(self, task_id: int, handler: str, queue: str, user: str, due_at_ms: int) -> None:
        if self.on:
            log.info(
                "task_enqueued", task_id=task_id, handler=handler, queue=queue, user=user, due_at_ms=due_at_ms or None
            )

    def started(self, task: Task) -> None:
        if self.on:
            log.info("task_started", items=task.items, **_keys(task))

    def completed(self, task: Task) -> None:
        if self.on:
            log.info("task_completed", **_keys(task))

    def ended(self, task: Task, outcome: Outcome) -> None:
        """Say what an attempt came to, other than completion."""
        if not self.on:
            return
        keys = _keys(task)
        match outcome.event:
            case Event.RETRY | Event.SNOOZE:
                log.info("task_retried", delay_ms=outcome.delay_ms, error=outcome.error, **keys)
            case Event.RELEASE | Event.RECOVER:
                log.info("task_released", reason=outcome.error or None, **keys)
            case Event.DISCARD:
                log.info("task_discarded", error=outcome.error, **keys)
            case Event.CANCEL:
                log.info("task_cancelled", **keys)
            case Event.EXPIRE | Event.DROP:
                log.info("task_expired", **keys)
            case Event.COMPLETE | Event.DUE | Event.CLAIM | Event.REPLAY:
                pass  # said by `completed`, or no end of an attempt

    def item_ended(self, task: Task, index: int, outcome: Outcome) -> None:
        if not self.on:
            return
        if outcome.event is Event.DISCARD:
            log.info("item_discarded", index=index, error=outcome.error, **_keys(task))
        else:
            log.info("item_retried", index=index, delay_ms=outcome.delay_ms, error=outcome.error, **_keys(task))

    def job_opened(self, job: Job) -> None:
        if self.on:
            log.info(
                "job_opened", job_id=job.id, handler=job.spec.handler, queue=job.lane.queue.name, user=job.lane.user
            )

    def job_finished(self, job: Job) -> None:
        if self.on:
            log.info(
                "job_finished",
                job_id=job.id,
                state=job.state.value,
                done=job.done,
                failed=job.failed,
                cancelled=job.cancelled,
            )


def _keys(task: Task) -> dict[str, object]:
    return {
        "task_id": task.id,
        "attempt": task.attempt,
        "handler": task.handler.name,
        "queue": task.lane.queue.name,
        "user": task.lane.user,
        "job_id": task.job,
    }
