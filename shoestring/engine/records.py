"""What the engine holds in memory of tasks, handlers and jobs."""

from __future__ import annotations

import asyncio

import msgspec

from shoestring.core.fanout import ItemsLeft
from shoestring.core.lanes import HandlerGate, Lane
from shoestring.core.model import JobId, JobSpec, JobState, Progress, Rank, TaskId, id_of
from shoestring.engine.registry import HandlerSpec
from shoestring.store.rows import Row
from shoestring.store.tasks import Extra

NO_EXTRA = Extra()


class HandlerState:
    """A handler the file knows by number, and what it did in this generation."""

    __slots__ = ("abandoned", "completed", "failed", "gate", "id", "name", "spec")

    def __init__(self, handler_id: int, name: str, spec: HandlerSpec | None) -> None:
        self.id = handler_id
        self.name = name
        self.spec = spec  # None: the running app does not declare it
        self.gate = HandlerGate(spec.concurrency if spec is not None else None)
        self.completed = 0
        self.failed = 0
        self.abandoned = 0


class Chunk:
    """The items of a chunk, as JSON, and what is left to do of them."""

    __slots__ = ("cancelled", "items", "left", "stored_progress")

    def __init__(self, items: bytes, left: ItemsLeft, *, stored_progress: bool) -> None:
        self.items = items
        self.left = left
        self.stored_progress = stored_progress  # a row in `progress` has to go with the chunk
        self.cancelled = False  # while it ran: it ends with the item that runs


class Task:
    """One task in memory. Its row stays where it is until its outcome moves or deletes it."""

    __slots__ = (
        "attempt",
        "body",
        "chunk",
        "crc",
        "ended",
        "enqueued_at_ms",
        "extra",
        "gate",
        "handler",
        "items",
        "job",
        "lane",
        "rank",
        "stored",
    )

    def __init__(
        self,
        lane: Lane,
        rank: Rank,
        handler: HandlerState,
        attempt: int,
        enqueued_at_ms: int,
        job: JobId | None,
        items: int,
        crc: int,
        body: bytes,
        extra: Extra,
        *,
        stored: bool,
    ) -> None:
        self.lane = lane
        self.rank = rank
        self.handler = handler
        self.gate = handler.gate
        self.attempt = attempt
        self.enqueued_at_ms = enqueued_at_ms
        self.job = job
        self.items = items
        self.crc = crc
        self.body = body
        self.extra = extra
        self.chunk: Chunk | None = None
        #: False while the row is in no commit that was begun: the task can still end without touching the disk.
        self.stored = stored
        #: Its outcome is written down; it stays known until that is committed.
        self.ended = False

    @property
    def id(self) -> TaskId:
        return id_of(self.rank)

    def columns(self) -> Row:
        """Return the columns that `ready` and `delayed` share."""
        return task_columns(
            self.handler.id, self.attempt, self.enqueued_at_ms, self.job, self.items, self.crc, self.body, self.extra
        )


def task_columns(
    handler: int, attempt: int, enqueued_at_ms: int, job: int | None, items: int, crc: int, body: bytes, extra: Extra
) -> Row:
    spelled = None if extra is NO_EXTRA or extra == NO_EXTRA else encode_extra(extra)
    return (handler, attempt, enqueued_at_ms, job, items, crc, body.decode(), spelled)


class Job:
    """A fan-out in memory, while it is open or has work left."""

    __slots__ = (
        "accepted",
        "cancelled",
        "changed",
        "created_at_ms",
        "cursor",
        "done",
        "error",
        "failed",
        "finished_at_ms",
        "handler",
        "id",
        "lane",
        "next_pull_at_ms",
        "pulling",
        "pulls_failed",
        "purge",
        "seq",
        "spec",
        "state",
        "version",
        "withdrawn",
    )

    def __init__(self, job_id: JobId, spec: JobSpec, lane: Lane, handler: HandlerState, *, created_at_ms: int) -> None:
        self.id = job_id
        self.spec = spec
        self.lane = lane
        self.handler = handler
        self.state = JobState.OPEN
        self.cursor: str | None = None
        self.seq = 0  # appends or pages taken in
        self.next_pull_at_ms = 0
        self.pulls_failed = 0
        self.pulling = False
        self.accepted = self.done = self.failed = self.cancelled = 0
        self.created_at_ms = created_at_ms
        self.finished_at_ms: int | None = None
        self.error: str | None = None
        self.purge = False  # cancelled, and rows of its chunks may still be in the file
        self.version = 1
        self.withdrawn = False  # could not be stored: its producer was told so, and nothing of it may be written
        self.changed: asyncio.Event | None = None  # made when somebody waits

    @property
    def pending(self) -> int:
        return self.accepted - self.done - self.failed - self.cancelled

    @property
    def is_finished(self) -> bool:
        return self.finished_at_ms is not None

    def touch(self) -> None:
        """Note a change and wake who waits for one."""
        self.version += 1
        if self.changed is not None:
            self.changed.set()

    def row(self) -> Row:
        return (
            self.id, self.lane.id, self.state.value, encode_spec(self.spec), self.cursor, self.seq,
            self.next_pull_at_ms, self.pulls_failed, self.accepted, self.done, self.failed, self.cancelled,
            self.created_at_ms, self.finished_at_ms, self.error, int(self.purge),
        )  # fmt: skip

    def progress(self) -> Progress:
        return Progress(
            job_id=self.id, state=self.state, handler=self.spec.handler, queue=self.lane.queue.name,
            user=self.lane.user, total=None if self.state is JobState.OPEN else self.accepted,
            accepted=self.accepted, done=self.done,
            failed=self.failed, cancelled=self.cancelled, pending=self.pending, created_at_ms=self.created_at_ms,
            finished_at_ms=self.finished_at_ms, error=self.error, version=self.version,
        )  # fmt: skip


def encode_extra(extra: Extra) -> str:
    return _encode(extra).decode()


def encode_spec(spec: JobSpec) -> str:
    return _encode(spec).decode()


_encode = msgspec.json.encode
