"""The records everything else passes around: what is stored, what is asked for, what is answered.

Instants end in `_at_ms` (wall clock, milliseconds since 1970), lengths of time in `_ms` or `_s`. Records that
cross the wire or the disk are msgspec structs, so that they are decoded and checked in one step.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final, Generic, NewType, TypeVar

import msgspec

TaskId = NewType("TaskId", int)
JobId = NewType("JobId", int)
LaneId = NewType("LaneId", int)
Rank = NewType("Rank", int)

PRIORITY_MIN: Final = -100
PRIORITY_MAX: Final = 100
#: Ids fit the integers JavaScript can hold; the bits above them carry the priority, so that one 64-bit
#: integer orders a lane.
ID_BITS: Final = 53
ID_MASK: Final = (1 << ID_BITS) - 1


def rank_of(priority: int, task_id: int) -> Rank:
    """Return the place of a task in its lane: a higher priority first, then the older id."""
    return Rank((PRIORITY_MAX - priority) << ID_BITS | task_id)


def id_of(rank: int) -> TaskId:
    return TaskId(rank & ID_MASK)


def priority_of(rank: int) -> int:
    return PRIORITY_MAX - (rank >> ID_BITS)


class Durability(enum.Enum):
    """When the producer is answered."""

    VOLATILE = "volatile"  # at once: a crash of the process within the commit window loses it
    RELAXED = "relaxed"  # after COMMIT: survives kill -9; a power cut takes the last two fsync windows at most
    DURABLE = "durable"  # after fdatasync: survives a power cut


class Delivery(enum.Enum):
    AT_LEAST_ONCE = "at_least_once"
    AT_MOST_ONCE = "at_most_once"


class Timeout(msgspec.Struct, frozen=True):
    """Time limits of one call of a handler, in seconds; None means no limit.

    At `soft` the handler gets `SoftTimeout` raised where it stands; at `hard` it is cancelled, and if that does
    not end it, abandoned: the slot is given back and the abandoned call is counted.
    """

    soft: float | None = None
    hard: float | None = 600.0


class Options(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """What `.using()` sets for one call. Absent means: as the handler declares it."""

    user: str = ""
    queue: str | None = None
    priority: int = 0
    delay_ms: int | None = None
    due_at_ms: int | None = None
    expires_in_ms: int | None = None
    expires_at_ms: int | None = None
    unique: str | None = None
    durability: Durability | None = None


DEFAULT_OPTIONS: Final = Options()


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One task as a producer hands it over: `[handler, body, options]`.

    `body` is a JSON object of the handler's arguments by name.
    """

    handler: str
    body: msgspec.Raw
    options: Options | None = None


class SourceCall(msgspec.Struct, frozen=True, kw_only=True):
    """A paged source and the arguments it is called with at every page."""

    name: str
    body: msgspec.Raw


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """What a source yields at one call: items and the cursor of the page after; `next=None` ends the job's items."""

    items: Sequence[T]
    next: str | None = None


class JobSpec(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A fan-out as a producer opens it."""

    handler: str
    body: msgspec.Raw = msgspec.Raw(b"{}")  # the arguments every item shares
    options: Options | None = None
    chunk: int = 50
    every_ms: int = 0  # least time between two pages of the source
    source: SourceCall | None = None  # None: the producer streams the items itself
    then: Entry | None = None


class JobState(enum.Enum):
    OPEN = "open"  # items are still coming
    SEALED = "sealed"  # all items are known
    DONE = "done"  # every item came to an end
    CANCELLED = "cancelled"


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is, in items. `total` is None until the last item is known."""

    job_id: int
    state: JobState
    handler: str
    queue: str
    user: str
    total: int | None
    accepted: int
    done: int
    failed: int
    cancelled: int
    pending: int
    created_at_ms: int
    finished_at_ms: int | None = None
    error: str | None = None  # why the items are not all there, if the producer or source failed
    version: int = 0  # rises with every change; hand it back to wait for the next one

    @property
    def finished(self) -> bool:
        return self.state in (JobState.DONE, JobState.CANCELLED)


class TaskState(enum.Enum):
    """Where a stored task stands, as people are told; see `lifecycle` for what is stored."""

    READY = "ready"
    DELAYED = "delayed"
    RUNNING = "running"
    WAITING = "waiting"  # its handler is not declared by the running app
    DISCARDED = "discarded"


class TaskView(msgspec.Struct, frozen=True, kw_only=True):
    """One task as people are shown it."""

    task_id: int
    state: TaskState
    handler: str
    queue: str
    user: str
    priority: int
    attempt: int  # attempts that came to an outcome
    enqueued_at_ms: int
    due_at_ms: int | None = None
    job_id: int | None = None
    items: int = 1  # items not done yet
    body: str = ""  # arguments, JSON; cut at 1,000 characters
    error: str | None = None
    traceback: str | None = None
    discarded_at_ms: int | None = None


class Ledger(msgspec.Struct, kw_only=True):
    """The books, in items: accepted = completed + discarded + cancelled + expired + dropped + pending."""

    accepted: int = 0
    completed: int = 0
    discarded: int = 0
    cancelled: int = 0
    expired: int = 0
    dropped: int = 0

    @property
    def pending(self) -> int:
        return self.accepted - self.completed - self.discarded - self.cancelled - self.expired - self.dropped


class Charge(enum.Enum):
    ENQUEUE = "enqueue"
    RUN = "run"


class Limit(msgspec.Struct, frozen=True, kw_only=True):
    """A token bucket's settings: up to `capacity` at once, refilled at `rate` tokens a second."""

    capacity: Annotated[float, msgspec.Meta(gt=0, le=1e12)]
    rate: Annotated[float, msgspec.Meta(gt=0, le=1e9)]
    charge: Charge = Charge.RUN


class QueueConfig(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of one queue."""

    concurrency: Annotated[int, msgspec.Meta(ge=1, le=10_000)] | None = None  # at once; None: all the daemon's slots
    limit: Limit | None = None  # per user
    low_water: Annotated[int, msgspec.Meta(ge=1, le=10_000_000)] = 1_000  # items; below it a source is pulled


class LaneView(msgspec.Struct, frozen=True, kw_only=True):
    queue: str
    user: str
    pending: int
    running: int
    parked_until_ms: int | None
    parked_reason: str | None


class QueueView(msgspec.Struct, frozen=True, kw_only=True):
    queue: str
    ready: int  # items that could run now, waiting included
    delayed: int  # tasks due later
    running: int
    parked: int  # lanes
    waiting: int  # items whose handler is missing
    ledger: Ledger
    pending: int


class HandlerView(msgspec.Struct, frozen=True, kw_only=True):
    handler: str
    queue: str
    running: int
    completed: int
    failed: int
    abandoned: int  # threads or coroutines that outlived their hard timeout and their slot
    declared: bool = True  # False: the file knows it, the running app does not


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The daemon on one page; what `shoestring status --json` prints."""

    version: str
    pid: int
    generation: int
    started_at_ms: int
    now_ms: int
    database: str
    database_bytes: int
    wal_bytes: int
    rss_bytes: int
    pending: int
    running: int
    slots: int
    delayed: int
    accepting: bool  # False while the disk is too full to take new tasks
    commits: int
    fsyncs: int
    ledger: Ledger
    queues: list[QueueView]
    handlers: list[HandlerView]
    parked: list[LaneView]
    jobs_open: int
    abandoned: int
    discarded_kept: int
    suspects: int
    waiting_handlers: dict[str, int]  # handler name -> items that wait for it


class Duplicate(msgspec.Struct, frozen=True):
    """What `submit` answers for an entry whose `unique` key a task already holds."""

    task_id: int
