"""What the recorded lives know of a lane, a fan-out and a stored task, and the rows these make."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, fields

import msgspec

from shoestring.core.fanout import ItemsLeft
from shoestring.core.model import JobSpec
from shoestring.engine.records import NO_EXTRA, encode_spec, task_columns
from shoestring.store.rows import Row
from shoestring.store.tasks import Extra


@dataclass(slots=True)
class Lane:
    id: int
    queue: str
    user: str
    accepted: int = 0
    completed: int = 0
    discarded: int = 0
    cancelled: int = 0
    expired: int = 0
    dropped: int = 0
    delayed: int = 0

    def row(self) -> Row:
        return tuple(getattr(self, each.name) for each in fields(self))


@dataclass(slots=True)
class Fanout:
    id: int
    lane: Lane
    state: str = "open"
    seq: int = 0
    accepted: int = 0
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    finished_at_ms: int | None = None
    purge: int = 0

    @property
    def pending(self) -> int:
        return self.accepted - self.done - self.failed - self.cancelled

    def row(self) -> Row:
        spec = encode_spec(JobSpec(handler="block", body=msgspec.Raw(b'{"account":"troll"}'), chunk=8))
        return (
            self.id, self.lane.id, self.state, spec, f"page {self.seq}", self.seq, 0, 0, self.accepted, self.done,
            self.failed, self.cancelled, 1_000, self.finished_at_ms, None, self.purge,
        )  # fmt: skip


@dataclass(slots=True)
class Stored:
    id: int
    lane: Lane
    rank: int
    handler: int
    body: bytes
    extra: Extra = NO_EXTRA
    attempt: int = 0
    due_at_ms: int = 0
    job: Fanout | None = None
    left: ItemsLeft | None = None
    stored_progress: bool = False

    def columns(self) -> Row:
        job, items = (None, 1) if self.job is None or self.left is None else (self.job.id, max(1, self.left.count))
        crc = zlib.crc32(self.body)
        return task_columns(self.handler, self.attempt, 1_000, job, items, crc, self.body, self.extra)

    def ready_row(self) -> Row:
        return (self.lane.id, self.rank, *self.columns())

    def delayed_row(self) -> Row:
        return (self.due_at_ms, self.id, self.lane.id, self.rank, *self.columns())
