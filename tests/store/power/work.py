"""Batches such as the engine makes: what producers send, what attempts come to, fan-outs from open to done.

It keeps the books in memory and writes absolute figures, as the engine does (`engine.intake`, `engine.completer`,
`engine.jobs`). Everything is drawn from one seed.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from random import Random
from typing import Final

import msgspec

from shoestring.core.fanout import ItemsLeft
from shoestring.core.model import rank_of
from shoestring.engine.records import NO_EXTRA
from shoestring.store.batch import Batch, Loser
from shoestring.store.opening import ID_STEP
from shoestring.store.tasks import Extra
from tests.store.power.records import Fanout, Lane, Stored

_HANDLERS: Final = ("send_mail", "block", "thumbnail")
_LANES: Final = [(queue, user) for queue in ("mail", "block") for user in ("", "alice", "bob")]


@dataclass(slots=True)
class Work:
    """Makes one batch after the other. `settle` is to be called with what `apply` answered."""

    rng: Random
    next_id: int = 0
    reserved_id: int = 0
    now_ms: int = 1_000
    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)
    jobs: dict[int, Fanout] = field(default_factory=dict)
    stored: dict[int, Stored] = field(default_factory=dict)
    handlers: list[int] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    touched: set[int] = field(default_factory=set)

    def opened(self, next_id: int) -> None:
        """Take the ids from where a new generation may."""
        self.next_id, self.reserved_id = next_id, next_id + ID_STEP

    def make_batch(self) -> Batch:
        """Return the next batch. Its first task is always new, so no two commits leave the same content."""
        self.batch, rng = Batch(), self.rng
        self.touched = set()
        self.now_ms += 200
        self._accept(rng.randint(1, 6))
        for action in rng.sample(
            [self._end_some, self._retry_some, self._move_due, self._open_job, self._run_chunks, self._run_chunks,
             self._end_jobs, self._limit, self._accept_volatile],
            k=rng.randint(2, 6),
        ):  # fmt: skip
            action()
        if self.next_id + 1_000 > self.reserved_id:
            self.reserved_id += ID_STEP
            self.batch.next_id = self.reserved_id
        return self.batch

    def settle(self, losers: dict[int, Loser]) -> None:
        """Take back what was left out because its unique key is held."""
        for task_id, loser in losers.items():
            lane = self.stored.pop(task_id).lane
            lane.accepted -= 1
            lane.delayed -= loser.delayed

    # -- what comes in --------------------------------------------------------------------------------------------

    def _new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def _lane(self) -> Lane:
        key = self.rng.choice(_LANES)
        return self.lanes.setdefault(key, Lane(len(self.lanes) + 1, *key))

    def _write_lane(self, lane: Lane) -> None:
        self.batch.lanes[lane.id] = lane.row()

    def _new_task(self, lane: Lane, handler: int, extra: Extra = NO_EXTRA) -> Stored:
        body = msgspec.json.encode({"to": "x" * self.rng.randint(1, 400), "n": self.rng.getrandbits(32)})
        if handler not in self.handlers:
            self.handlers.append(handler)
            self.batch.handlers.append((handler, _HANDLERS[handler - 1]))
        task_id = self._new_id()
        task = Stored(task_id, lane, rank_of(self.rng.choice((0, 0, 10)), task_id), handler, body, extra)
        self.stored[task_id] = task
        self.touched.add(task_id)
        return task

    def _accept(self, count: int) -> None:
        for number in range(count):
            extra = NO_EXTRA
            key = f"key {self.rng.randrange(8)}"
            if number and self.rng.random() < 0.3 and key not in self.batch.uniques:
                extra = Extra(unique=key, expires_at_ms=self.now_ms + 10**6)
            lane = self._lane()
            task = self._new_task(lane, 1, extra)
            lane.accepted += 1
            if extra.unique is not None:
                self.batch.uniques[extra.unique] = task.id
            if self.rng.random() < 0.3:
                task.due_at_ms = self.now_ms + self.rng.randrange(5_000)
                lane.delayed += 1
                self.batch.accepted_delayed.append(task.delayed_row())
            else:
                self.batch.accepted_ready.append(task.ready_row())
            self._write_lane(lane)

    def _accept_volatile(self) -> None:
        lane = self._lane()
        task = self._new_task(lane, 3)
        lane.accepted += 1
        self.batch.ready[task.id] = task.ready_row()
        self._write_lane(lane)

    # -- what attempts come to ------------------------------------------------------------------------------------

    def _pick(self, count: int, *, chunks: bool = False) -> list[Stored]:
        able = [
            each for each in self.stored.values()
            if not each.due_at_ms and each.id not in self.touched and (each.job is not None) is chunks
        ]  # fmt: skip
        picked = self.rng.sample(able, min(count, len(able)))
        self.touched.update(each.id for each in picked)
        return picked

    def _end_some(self) -> None:
        for task in self._pick(self.rng.choice((1, 4, 12))):
            end = self.rng.choice(("completed", "completed", "completed", "discarded", "cancelled", "expired"))
            setattr(task.lane, end, getattr(task.lane, end) + 1)
            if end == "discarded":
                self._keep_discarded(task, task.id, None)
            self._forget(task)

    def _forget(self, task: Stored) -> None:
        batch = self.batch
        del self.stored[task.id]
        batch.ready_gone.append((task.lane.id, task.rank))
        self._forget_rest(task)

    def _forget_rest(self, task: Stored) -> None:
        if task.extra.unique is not None:
            self.batch.uniques_gone.append(task.extra.unique)
        if task.job is not None:
            self.batch.chunks_gone.append(task.id)
            if task.stored_progress:
                self.batch.progress_gone.append(task.id)
        self._write_lane(task.lane)

    def _keep_discarded(self, task: Stored, number: int, item: str | None) -> None:
        self.batch.discarded.append((
            number, task.lane.id, task.rank, task.handler, task.attempt, 1_000, self.now_ms,
            None if task.job is None else task.job.id, task.body.decode(), item, "ValueError: no", "Traceback" * 30,
        ))  # fmt: skip

    def _retry_some(self) -> None:
        for task in self._pick(3):
            task.attempt += 1
            self._delay(task, self.now_ms + self.rng.randrange(1, 10_000))

    def _delay(self, task: Stored, due_at_ms: int) -> None:
        task.due_at_ms = due_at_ms
        task.lane.delayed += 1
        self.batch.ready_gone.append((task.lane.id, task.rank))
        self.batch.delayed[task.id] = task.delayed_row()
        self._write_lane(task.lane)

    def _move_due(self) -> None:
        for task in list(self.stored.values()):
            if not task.due_at_ms or task.due_at_ms > self.now_ms or task.id in self.touched:
                continue
            self.touched.add(task.id)
            self.batch.delayed_gone.append((task.due_at_ms, task.id))
            task.lane.delayed -= 1
            task.due_at_ms = 0
            if task.job is not None and task.job.state == "cancelled":
                del self.stored[task.id]  # its items are counted already
                self._forget_rest(task)
                continue
            self.batch.ready[task.id] = task.ready_row()
            self._write_lane(task.lane)

    # -- fan-outs -------------------------------------------------------------------------------------------------

    def _write_job(self, job: Fanout) -> None:
        self.batch.jobs[job.id] = job.row()
        self._write_lane(job.lane)

    def _open_job(self) -> None:
        able = [each for each in self.jobs.values() if each.state == "open"]
        if len(able) >= 3:
            job = self.rng.choice(able)
        else:
            job = Fanout(self._new_id(), self._lane())
            self.jobs[job.id] = job
        for _ in range(self.rng.randint(1, 4)):
            task = self._new_task(job.lane, 2)
            size = self.rng.randint(1, 8)
            task.job, task.left = job, ItemsLeft(size)
            text = msgspec.json.encode([self.rng.getrandbits(60) for _ in range(size)])
            self.batch.accepted_chunks.append((task.id, size, zlib.crc32(text), text.decode()))
            self.batch.accepted_ready.append(task.ready_row())
            job.accepted += size
            job.lane.accepted += size
        job.seq += 1
        if job.seq > 2 and self.rng.random() < 0.4:
            job.state = "sealed"
        self._write_job(job)

    def _run_chunks(self) -> None:
        for task in self._pick(3, chunks=True):
            job, left = task.job, task.left
            assert job is not None and left is not None
            if job.state == "cancelled":
                continue  # the purge takes it
            for index in left.runnable(now_ms=self.now_ms)[: self.rng.randint(1, 8)]:
                self._end_item(task, job, left, index)
            if left.count == 0:
                self._forget(task)
            elif (due_at_ms := left.next_due_ms()) is not None and due_at_ms > self.now_ms:
                self._write_progress(task, left)
                self._delay(task, due_at_ms)
            else:
                self._write_progress(task, left)
            self._write_job(job)

    def _end_item(self, task: Stored, job: Fanout, left: ItemsLeft, index: int) -> None:
        draw = self.rng.random()
        if draw < 0.2:
            left.retry(index, due_at_ms=self.now_ms + self.rng.randrange(1, 3_000))
            return
        left.end(index)
        if draw < 0.3:
            self._keep_discarded(task, self._new_id(), str(index))
            task.lane.discarded += 1
            job.failed += 1
        else:
            task.lane.completed += 1
            job.done += 1

    def _write_progress(self, task: Stored, left: ItemsLeft) -> None:
        self.batch.progress[task.id] = (task.id, left.encode())
        task.stored_progress = True

    def _end_jobs(self) -> None:
        for job in self.jobs.values():
            if job.state == "sealed" and job.pending == 0:
                job.state, job.finished_at_ms = "done", self.now_ms
            elif job.state in ("open", "sealed") and self.rng.random() < 0.1:
                job.lane.cancelled += job.pending
                job.cancelled += job.pending
                job.state, job.finished_at_ms, job.purge = "cancelled", self.now_ms, 1
            else:
                continue
            self._write_job(job)

    def to_purge(self) -> Fanout | None:
        """Return a cancelled job whose chunks are still there, for `sweeping.purge_job`."""
        return next((each for each in self.jobs.values() if each.purge), None)

    def purged(self, job: Fanout) -> Batch:
        """Take note that `purge_job` went through its lane; return the batch that says so in the file."""
        job.purge = 0
        self.stored = {n: task for n, task in self.stored.items() if task.job is not job or task.due_at_ms}
        return Batch(jobs={job.id: job.row()})

    # -- limits ---------------------------------------------------------------------------------------------------

    def _limit(self) -> None:
        lane = self._lane()
        key = (lane.queue, lane.user)
        self.batch.buckets[key] = (*key, self.rng.random() * 10, 10.0, 0.5, self.now_ms)
        park = ("queue", lane.queue)
        if self.rng.random() < 0.5:
            self.batch.parks[park] = (*park, self.now_ms + 60_000, "429")
        else:
            self.batch.parks_gone.append(park)
