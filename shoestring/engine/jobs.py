"""Fan-outs: opened, filled item by item or page by page, watched, finished or cancelled."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from shoestring.config import LimitsConfig
from shoestring.core.clock import Clock
from shoestring.core.errors import ArgumentError, Conflict, NotFound, PayloadTooLarge, UnknownHandler, UsageError
from shoestring.core.model import DEFAULT_OPTIONS, Delivery, Entry, JobId, JobSpec, JobState, Progress, rank_of
from shoestring.engine.books import Books
from shoestring.engine.committer import Answers, Committer, Haste, Submission
from shoestring.engine.intake import Intake
from shoestring.engine.journal import Journal
from shoestring.engine.records import NO_EXTRA, Job, task_columns
from shoestring.store.batch import Batch
from shoestring.store.db import Db
from shoestring.store.views import job_progress

#: A watcher is told of changes at most this often, in seconds: more is not seen and costs a frame each.
_TELL_EVERY_S: Final = 0.1
_CHUNK_MAX: Final = 10_000
#: Ten years. A longer spacing is a mistake in units.
_EVERY_MS_MAX: Final = 3_650 * 86_400_000


class Jobs:
    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        books: Books,
        committer: Committer,
        intake: Intake,
        limits: LimitsConfig,
        wake_puller: Callable[[], None],
        stop_job: Callable[[Job], None],
        journal: Journal,
    ) -> None:
        self._db = db
        self._clock = clock
        self._books = books
        self._committer = committer
        self._intake = intake
        self._limits = limits
        self._wake_puller = wake_puller
        self._stop_job = stop_job
        self._journal = journal
        self._finishing: dict[int, asyncio.Task[None]] = {}
        self.failed: asyncio.Future[None] | None = None

    # -- open and fill --------------------------------------------------------------------------------------------

    async def open(self, spec: JobSpec) -> JobId:
        """Open a job; it is stored when this returns."""
        self._intake.refuse_if_closed()
        self._check(spec)
        entry = Entry(spec.handler, spec.body, spec.options)
        lane_key = self._intake.lane_for(entry)
        await self._intake.learn_lanes([lane_key])
        job = self._books.add_job(spec, self._books.lanes[lane_key], now_ms=self._clock.now_ms())
        self._committer.gathering.jobs.add(job)
        self._committer.gathering.lanes.add(job.lane)  # a start looks for the lane of every open job
        await self._committed(lambda _batch: self._withdraw(job))
        self._journal.job_opened(job)
        if spec.source is not None:
            self._wake_puller()
        return job.id

    def _withdraw(self, job: Job) -> None:
        job.withdrawn, job.state = True, JobState.CANCELLED
        del self._books.jobs[job.id]

    def _check(self, spec: JobSpec) -> None:
        handler = self._books.registry.handlers.get(spec.handler)
        if handler is None:
            raise UnknownHandler(
                f"no handler named {spec.handler!r} is declared by the running app. Nothing was stored."
            )
        if handler.delivery is Delivery.AT_MOST_ONCE:
            raise UsageError(
                f"{spec.handler} is at_most_once, which a fan-out cannot promise per item. Nothing was stored."
            )
        if not 1 <= spec.chunk <= _CHUNK_MAX:
            raise ArgumentError(f"chunk={spec.chunk} is not within 1..{_CHUNK_MAX}. Nothing was stored.")
        if not 0 <= spec.every_ms <= _EVERY_MS_MAX:
            raise ArgumentError("every is not within 0 and ten years. Nothing was stored.")
        self._intake.check(Entry(spec.handler, spec.body, spec.options))
        options = spec.options or DEFAULT_OPTIONS
        if options.unique is not None or options.delay_ms is not None or options.due_at_ms is not None:
            raise ArgumentError("unique= and run_after= do not apply to a fan-out. Nothing was stored.")
        handler.arguments.check_shared(spec.body)
        if spec.source is not None and spec.source.name not in self._books.registry.sources:
            raise UnknownHandler(
                f"no source named {spec.source.name!r} is declared by the running app. Nothing was stored."
            )
        if spec.then is not None:
            self._check_then(spec.then)

    def _check_then(self, then: Entry) -> None:
        # All of it now: when the last item ends nobody is there any more who could be told.
        handler = self._books.registry.handlers.get(then.handler)
        if handler is None:
            raise UnknownHandler(
                f"then= names {then.handler!r}, which the running app does not declare. Nothing was stored."
            )
        self._intake.check(then)
        handler.arguments.check(then.body)

    async def append(self, job_id: int, seq: int, items: msgspec.Raw) -> int:
        """Store a slice of a job's items and return how many it has now. A slice stored before is not stored again.

        Raises:
            NotFound, Conflict: there is no such job, or it takes no more items.
            ArgumentError: an item does not fit the handler; `index` is its place in the slice; nothing of it is stored.
        """
        job = self._open_job(job_id)
        if seq < job.seq:
            return job.accepted
        if seq > job.seq:
            raise Conflict(f"slice {seq} of job {job_id} came before slice {job.seq}. Send them in order.")
        await self.add_items(job, bytes(items), lambda: None)
        return job.accepted

    async def add_items(self, job: Job, items: bytes, also_undo: Callable[[], None]) -> None:
        """Store items as chunks and return when they are committed; `also_undo` if they could not be."""
        self._intake.refuse_if_closed()
        spec = self._books.registry.handlers[job.spec.handler]
        spec.arguments.decode_items(items)
        raw: list[msgspec.Raw] = msgspec.json.decode(items, type=list[msgspec.Raw])
        chunks = self._chunks_of(job, raw)
        self._intake.charge_items(job.lane, len(raw))
        self._store_chunks(job, chunks, len(raw))
        job.seq += 1

        def undo(_batch: Batch) -> None:
            job.accepted -= len(raw)
            job.lane.ledger.accepted -= len(raw)
            job.seq -= 1
            if job.state is JobState.CANCELLED and not job.withdrawn:  # meanwhile, and these counted as well
                job.cancelled -= len(raw)
                job.lane.ledger.cancelled -= len(raw)
            also_undo()

        job.touch()
        self._committer.gathering.jobs.add(job)
        await self._committed(undo)

    def _chunks_of(self, job: Job, raw: list[msgspec.Raw]) -> list[tuple[int, bytes]]:
        """Return the chunks of a slice, size and JSON each; all of them or, if one is too large, none."""
        chunks: list[tuple[int, bytes]] = []
        for start in range(0, len(raw), job.spec.chunk):
            part = raw[start : start + job.spec.chunk]
            text = msgspec.json.encode(part)
            if len(text) > self._limits.payload_bytes_max:
                raise PayloadTooLarge(
                    f"a chunk of {len(part)} items takes {len(text)} bytes, at most {self._limits.payload_bytes_max} "
                    "are allowed (limits.payload_bytes_max). Nothing of this slice was stored. Use a smaller chunk=."
                )
            chunks.append((len(part), text))
        return chunks

    def _store_chunks(self, job: Job, chunks: list[tuple[int, bytes]], items: int) -> None:
        gathering, now_ms = self._committer.gathering, self._clock.now_ms()
        batch, lane = gathering.batch, job.lane
        options = job.spec.options or DEFAULT_OPTIONS
        extra = NO_EXTRA
        if options.expires_at_ms is not None or options.expires_in_ms is not None:
            expires_at_ms = options.expires_at_ms or now_ms + (options.expires_in_ms or 0)
            extra = msgspec.structs.replace(NO_EXTRA, expires_at_ms=expires_at_ms)
        shared = bytes(job.spec.body)
        columns_crc = zlib.crc32(shared)
        for size, text in chunks:
            task_id = self._books.new_ids(1)
            batch.accepted_chunks.append((task_id, size, zlib.crc32(text), text.decode()))
            columns = task_columns(job.handler.id, 0, now_ms, job.id, size, columns_crc, shared, extra)
            batch.accepted_ready.append((lane.id, rank_of(options.priority, task_id), *columns))
        job.accepted += items
        lane.ledger.accepted += items
        gathering.lanes.add(lane)

    async def _committed(self, undo: Callable[[Batch], object] | None) -> None:
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        self._committer.gathering.submissions.append(Submission(future, [], durable=False, undo=undo))
        self._committer.want(Haste.NOW)
        await future

    async def seal(self, job_id: int, error: str | None) -> Progress:
        """Say that all items are there, or (`error`) that the rest will not come; then `then=` is not run."""
        job = self._books.jobs.get(job_id)
        if job is None or job.state is not JobState.OPEN:
            return await self.progress(job_id)  # a seal sent again after a lost answer
        self.seal_job(job, error)
        await self._committed(None)
        return job.progress()

    def seal_job(self, job: Job, error: str | None) -> None:
        job.state = JobState.SEALED
        job.error = error
        job.touch()
        self._committer.gathering.jobs.add(job)
        self._committer.want(Haste.SOON)
        if job.pending == 0:
            self.drained(job)

    def _open_job(self, job_id: int) -> Job:
        job = self._books.jobs.get(job_id)
        if job is None:
            raise NotFound(f"there is no open job {job_id}.")
        if job.state is not JobState.OPEN or job.spec.source is not None:
            raise Conflict(f"job {job_id} is {job.state.value} and takes no more items. What it has is safe.")
        return job

    # -- the end --------------------------------------------------------------------------------------------------

    def drained(self, job: Job) -> None:
        """Finish a job of which nothing is pending any more."""
        if job.id not in self._finishing and not job.is_finished:
            finishing = asyncio.get_running_loop().create_task(self._finish(job))
            self._finishing[job.id] = finishing
            finishing.add_done_callback(lambda done: self._finished(job.id, done))

    def _finished(self, job_id: int, done: asyncio.Task[None]) -> None:
        del self._finishing[job_id]
        if (
            not done.cancelled()
            and (error := done.exception()) is not None
            and self.failed is not None
            and not self.failed.done()
        ):
            self.failed.set_exception(error)

    async def _finish(self, job: Job) -> None:
        then = job.spec.then
        if then is not None:
            await self._intake.learn_lanes([self._intake.lane_for(then)])
        if job.state is not JobState.SEALED or job.pending:
            return  # cancelled meanwhile
        # One transaction: the job is done and its `then` is stored, or neither.
        now_ms = self._clock.now_ms()
        job.state, job.finished_at_ms = JobState.DONE, now_ms
        if then is not None and job.error is None:
            self._intake.admit_internal(then, now_ms)
        self._journal.job_finished(job)
        self._committer.gathering.jobs.add(job)
        del self._books.jobs[job.id]
        job.touch()
        self._committer.want(Haste.SOON)

    async def cancel(self, job_id: int) -> Progress:
        """Cancel what is pending: one write. The rows of its chunks are deleted behind it."""
        job = self._books.jobs.get(job_id)
        if job is None or job.is_finished:
            return await self.progress(job_id)
        count = job.pending
        job.cancelled += count
        job.lane.ledger.cancelled += count
        job.state, job.finished_at_ms, job.purge = JobState.CANCELLED, self._clock.now_ms(), True
        gathering = self._committer.gathering
        gathering.jobs.add(job)
        gathering.lanes.add(job.lane)
        job.touch()
        self._journal.job_finished(job)
        self._stop_job(job)
        await self._committed(None)
        return job.progress()

    # -- watching -------------------------------------------------------------------------------------------------

    async def progress(self, job_id: int) -> Progress:
        """Return how far a job is; NotFound if there is none or it was pruned."""
        job = self._books.jobs.get(job_id)
        if job is not None:
            return job.progress()
        await self._committer.flush()  # it may have finished a moment ago
        found = await self._db.view(job_progress, job_id)
        if found is None:
            raise NotFound(f"there is no job {job_id}. Finished jobs are kept for a while and then pruned.")
        return found

    async def wait(self, job_id: int, *, version: int, timeout_s: float) -> Progress:
        """Return the progress once it is newer than `version`, or the job is finished, or the time is up."""
        job = self._books.jobs.get(job_id)
        if job is None:
            return await self.progress(job_id)
        deadline = self._clock.mono() + timeout_s
        while job.version <= version and not job.is_finished:
            if job.changed is None:
                job.changed = asyncio.Event()
            job.changed.clear()
            left_s = deadline - self._clock.mono()
            if left_s <= 0:
                break
            try:
                await asyncio.wait_for(job.changed.wait(), left_s)
            except TimeoutError:
                break
        rest_s = min(_TELL_EVERY_S, deadline - self._clock.mono())
        if not job.is_finished and rest_s > 0:
            await asyncio.sleep(rest_s)
        return job.progress()
