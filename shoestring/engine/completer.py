"""Turns outcomes into rows: the one place that decides what is written when an attempt ends.

`core.lifecycle` says which state an event leads to; here that becomes deletes, moves and counts in the transaction
that is being gathered. Books, jobs and rows change together, so whatever a crash leaves, the ledger balances.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from shoestring.core.clock import Clock
from shoestring.core.lanes import Park
from shoestring.core.lifecycle import BURNS_ATTEMPT, Event, State, next_state
from shoestring.core.model import JobState
from shoestring.core.outcome import CANCELLED, Outcome
from shoestring.engine.books import Books
from shoestring.engine.committer import Committer, Haste
from shoestring.engine.journal import Journal
from shoestring.engine.records import Job, Task
from shoestring.store.views import StoredTask

_COUNTER: Final = {
    State.COMPLETED: "completed",
    State.DISCARDED: "discarded",
    State.CANCELLED: "cancelled",
    State.EXPIRED: "expired",
    State.DROPPED: "dropped",
}


class Completer:
    def __init__(
        self,
        *,
        clock: Clock,
        books: Books,
        committer: Committer,
        put_back: Callable[[Task], None],
        job_drained: Callable[[Job], None],
        journal: Journal,
    ) -> None:
        self._clock = clock
        self._books = books
        self._committer = committer
        self._put_back = put_back
        self._journal = journal
        self._job_drained = job_drained  # nothing of the job is pending

    # -- plain tasks ----------------------------------------------------------------------------------------------

    def completed(self, task: Task) -> None:
        """Write that a plain task completed. The hot path: the same as `apply` with COMPLETED, without its choices."""
        gathering = self._committer.gathering
        lane, batch = task.lane, gathering.batch
        lane.ledger.completed += 1
        task.handler.completed += 1
        gathering.lanes.add(lane)
        gathering.ended.append(task.id)
        task.ended = True
        if task.stored:
            batch.ready_gone.append((lane.id, task.rank))
        else:
            del batch.ready[task.id]
        if task.extra.unique is not None:
            self._free_unique(task)
        if self._journal.on:
            self._journal.completed(task)
        self._committer.want(Haste.SOON if task.stored else Haste.LAZY)

    def apply(self, task: Task, outcome: Outcome, *, state: State = State.RUNNING) -> None:
        """Write what an attempt of a plain task came to, or what ended a task that did not run (`state`)."""
        if outcome.event in BURNS_ATTEMPT:
            task.attempt += 1
        after = next_state(state, outcome.event)
        self._journal.ended(task, outcome)
        if outcome.scope is not None:
            self.park(task, outcome)
        if outcome.event in (Event.RETRY, Event.DISCARD):
            task.handler.failed += 1
        if after is State.READY:
            self._put_back(task)
        elif after is State.DELAYED:
            self._move_to_delayed(task, self._clock.now_ms() + outcome.delay_ms)
        elif after is State.COMPLETED:
            self.completed(task)
        else:
            self._end(task, after, outcome)

    def park(self, task: Task, outcome: Outcome) -> None:
        """Hold what the outcome asks for: one row, however much waits there."""
        assert outcome.scope is not None
        until_ms = self._clock.now_ms() + outcome.delay_ms
        self._books.park(task.lane, outcome.scope, Park(until_ms, outcome.error))

    def _end(self, task: Task, after: State, outcome: Outcome) -> None:
        """End a task, or all that is left of a chunk."""
        job = self._job_of(task)
        if task.job is not None and job is None:
            self.forget_row(task)  # a cancelled job has counted its items itself
            return
        count = task.chunk.left.count if task.chunk is not None else task.items
        ledger = task.lane.ledger
        setattr(ledger, _COUNTER[after], getattr(ledger, _COUNTER[after]) + count)
        if after is State.DISCARDED:
            self._keep_what_is_left(task, outcome)
        if job is not None:
            if after is State.CANCELLED:
                job.cancelled += count
            else:
                job.failed += count
            self.changed(job)
        self.forget_row(task)

    def _move_to_delayed(self, task: Task, due_at_ms: int) -> None:
        gathering = self._committer.gathering
        self._take_row(task)
        if task.chunk is not None:
            task.items = max(1, task.chunk.left.count)
            gathering.chunks[task.id] = task
        gathering.batch.delayed[task.id] = (due_at_ms, task.id, task.lane.id, task.rank, *task.columns())
        task.lane.delayed += 1
        gathering.lanes.add(task.lane)
        gathering.ended.append(task.id)
        task.ended = True
        self._committer.want(Haste.SOON)

    def _take_row(self, task: Task) -> None:
        batch = self._committer.gathering.batch
        if task.stored:
            batch.ready_gone.append((task.lane.id, task.rank))
        else:
            del batch.ready[task.id]

    def forget_row(self, task: Task) -> None:
        """Delete everything the file holds of a task; what it counts for is the caller's."""
        gathering = self._committer.gathering
        self._take_row(task)
        gathering.lanes.add(task.lane)
        gathering.ended.append(task.id)
        task.ended = True
        if task.extra.unique is not None:
            self._free_unique(task)
        if task.job is not None:
            gathering.batch.chunks_gone.append(task.id)
            gathering.chunks.pop(task.id, None)
            if task.chunk is None or task.chunk.stored_progress:
                gathering.batch.progress_gone.append(task.id)
        self._committer.want(Haste.SOON)

    def _free_unique(self, task: Task) -> None:
        assert task.extra.unique is not None
        self._committer.gathering.batch.uniques_gone.append(task.extra.unique)

    def cancel_stored(self, task_id: int, found: StoredTask) -> None:
        """Cancel a task that is not in memory."""
        lane, gathering = self._books.lanes_by_id[found.lane], self._committer.gathering
        batch = gathering.batch
        if found.due_at_ms is not None:
            batch.delayed_gone.append((found.due_at_ms, task_id))
            lane.delayed -= 1
        else:
            batch.ready_gone.append((found.lane, found.rank))
        gathering.lanes.add(lane)
        if found.unique is not None:
            batch.uniques_gone.append(found.unique)
        job = None if found.job is None else self._books.jobs.get(found.job)
        if found.job is not None:
            batch.chunks_gone.append(task_id)
            batch.progress_gone.append(task_id)
        if found.job is None or (job is not None and job.state is not JobState.CANCELLED):
            lane.ledger.cancelled += found.left  # a cancelled job has counted its items itself
        if job is not None and job.state is not JobState.CANCELLED:
            job.cancelled += found.left
            self.changed(job)
        self._committer.want(Haste.NOW)

    # -- the items of chunks --------------------------------------------------------------------------------------

    def item_done(self, task: Task, job: Job, index: int) -> None:
        """Note that an item completed; stored with the next commit, at the latest after the lazy window."""
        assert task.chunk is not None
        task.chunk.left.end(index)
        task.lane.ledger.completed += 1
        task.handler.completed += 1
        job.done += 1
        self._progressed(task, job)

    def item_failed(self, task: Task, job: Job, index: int, item: str, outcome: Outcome) -> None:
        """Note that an item failed: it is tried again by itself, or given up and kept among the discarded."""
        assert task.chunk is not None
        left = task.chunk.left
        task.handler.failed += outcome.event in BURNS_ATTEMPT
        self._journal.item_ended(task, index, outcome)
        if outcome.event is Event.DISCARD:
            self._keep_discarded(task, (index, item), outcome)
            left.end(index)
            task.lane.ledger.discarded += 1
            job.failed += 1
        else:
            left.retry(index, due_at_ms=self._clock.now_ms() + outcome.delay_ms, burn=outcome.event in BURNS_ATTEMPT)
        self._progressed(task, job)

    def _progressed(self, task: Task, job: Job) -> None:
        gathering = self._committer.gathering
        gathering.chunks[task.id] = task
        gathering.lanes.add(task.lane)
        self.changed(job)
        self._committer.want(Haste.LAZY)

    def chunk_paused(self, task: Task) -> None:
        """End one pass over a chunk: it is gone if every item ended, else waits for its turn or its next item."""
        assert task.chunk is not None
        left = task.chunk.left
        job = self._job_of(task)
        if left.count == 0 or job is None:
            self.forget_row(task)
            if job is not None:
                self.changed(job)
        elif task.chunk.cancelled:
            self._end(task, State.CANCELLED, CANCELLED)
        elif (due_at_ms := left.next_due_ms()) is not None and due_at_ms > self._clock.now_ms():
            self._move_to_delayed(task, due_at_ms)
        else:
            self._put_back(task)

    def _job_of(self, task: Task) -> Job | None:
        """Return the task's job; None if it has none, or if the job was cancelled and counts nothing any more."""
        if task.job is None:
            return None
        job = self._books.jobs.get(task.job)
        return None if job is None or job.state is JobState.CANCELLED else job

    def changed(self, job: Job) -> None:
        """Have a job stored that counts differently now, and finished if nothing of it is pending."""
        self._committer.gathering.jobs.add(job)
        job.touch()
        if job.pending == 0 and job.state is JobState.SEALED:
            self._job_drained(job)

    # -- discarded ------------------------------------------------------------------------------------------------

    def _keep_what_is_left(self, task: Task, outcome: Outcome) -> None:
        if task.chunk is None:
            self._keep_discarded(task, None, outcome)
            return
        items = msgspec.json.decode(task.chunk.items, type=list[msgspec.Raw])
        for index, item in enumerate(items):
            if not task.chunk.left.ended >> index & 1:
                self._keep_discarded(task, (index, bytes(item).decode()), outcome)

    def _keep_discarded(self, task: Task, item: tuple[int, str] | None, outcome: Outcome) -> None:
        """Keep a task, or one item of a chunk, with its error, so that people can look at it and replay it."""
        assert item is None or task.chunk is not None
        if item is None or task.chunk is None:
            number, attempt, text = task.id, task.attempt, None
        else:
            number, text = self._books.new_ids(1), item[1]
            attempt = task.chunk.left.attempts.get(item[0], 0) + 1
        self._committer.gathering.batch.discarded.append((
            number, task.lane.id, task.rank, task.handler.id, attempt, task.enqueued_at_ms, self._clock.now_ms(),
            task.job, task.body.decode(errors="replace"), text, outcome.error, outcome.traceback,
        ))  # fmt: skip
        self._books.discarded_kept += 1
