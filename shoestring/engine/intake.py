"""Where tasks come in: checked, counted and given an id at once, stored with the next commit.

Admission never waits, so that a producer's entries keep their order and a burst needs one decision each, with one
exception: the first time a user is seen in this generation, the lane's books are read from the file.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import msgspec

from shoestring.config import LimitsConfig
from shoestring.core.clock import Clock
from shoestring.core.errors import (
    ArgumentError,
    DiskFull,
    LimitExceeded,
    PayloadTooLarge,
    QueueFull,
    ShoestringError,
    Unavailable,
)
from shoestring.core.lanes import Lane
from shoestring.core.model import (
    DEFAULT_OPTIONS,
    ID_BITS,
    PRIORITY_MAX,
    PRIORITY_MIN,
    Charge,
    Duplicate,
    Durability,
    Entry,
    Options,
    Rank,
)
from shoestring.engine.books import Books
from shoestring.engine.committer import Answers, Committer, Haste, Submission
from shoestring.engine.journal import Journal
from shoestring.engine.records import NO_EXTRA, HandlerState, Task, encode_extra
from shoestring.store.batch import Batch
from shoestring.store.db import Db
from shoestring.store.opening import find_lanes
from shoestring.store.tasks import Extra

#: Instants beyond the year 9999 are mistakes in units.
_NAME_CHARS_MAX: Final = 200
_INSTANT_MAX_MS: Final = 253_402_300_800_000


@dataclass(frozen=True, slots=True)
class _Route:
    """Where the entries of one handler and user go."""

    handler: HandlerState
    lane: Lane
    charged: bool
    check: Callable[[bytes], None] | None


class Intake:
    """Admits entries. `offer` puts a task that need not wait for its commit before the scheduler."""

    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        books: Books,
        committer: Committer,
        limits: LimitsConfig,
        offer: Callable[[Task], bool],
        check_space: Callable[[], None],
        journal: Journal,
    ) -> None:
        self._db = db
        self._clock = clock
        self._books = books
        self._committer = committer
        self._limits = limits
        self._offer = offer
        self._check_space = check_space
        self._journal = journal
        self._routes: dict[tuple[str, str | None, str], _Route] = {}
        self._routes_made_at = 0
        self._slow: set[asyncio.Task[None]] = set()
        self.no_space: str | None = None  # why nothing is accepted now
        self.closed = False

    def submit(self, entries: Sequence[Entry]) -> asyncio.Future[Answers]:
        """Admit entries in their order; see `Engine.submit`."""
        future: asyncio.Future[Answers] = asyncio.get_running_loop().create_future()
        try:
            self.refuse_if_closed()
            if self._routes_made_at != self._books.forgot_lanes:
                self._routes_made_at = self._books.forgot_lanes
                self._routes.clear()
            missing = self._missing_lanes(entries)
            if missing:
                learning = asyncio.ensure_future(self._submit_after_reading(entries, missing, future))
                self._slow.add(learning)
                learning.add_done_callback(self._slow.discard)
            else:
                self._admit(entries, future)
        except ShoestringError as error:
            future.set_exception(error)
        return future

    @property
    def is_open(self) -> bool:
        """Tell whether new tasks are taken."""
        return not self.closed and self._has_space() and not self._committer.disk_is_full

    def refuse_if_closed(self) -> None:
        """Raise what keeps everything new out: a stop, a full disk, too many that wait for their commit."""
        if self.closed:
            raise Unavailable(
                "the daemon is stopping and takes nothing new. Nothing was stored; try again when it is back."
            )
        if not self._has_space() or self._committer.disk_is_full:
            raise DiskFull(
                f"{self.no_space or 'the disk is full'}: new tasks are refused, nothing was stored. "
                "Stored work goes on. "
                "Free some space; acceptance resumes by itself."
            )
        batch = self._committer.gathering.batch
        waiting = len(batch.accepted_ready) + len(batch.accepted_delayed) + len(batch.accepted_chunks)
        if waiting >= self._limits.submissions_max:
            raise QueueFull(
                f"{waiting} tasks wait for their commit, the most there may be. Nothing was stored; try again shortly.",
                retry_after=0.1, depth=waiting, limit=self._limits.submissions_max,
            )  # fmt: skip

    def _has_space(self) -> bool:
        if self.no_space is not None:
            # Space is otherwise looked at after commits, and who refuses everything may never commit again.
            self._check_space()
        return self.no_space is None

    # -- lanes ----------------------------------------------------------------------------------------------------

    def _missing_lanes(self, entries: Sequence[Entry]) -> list[tuple[str, str]]:
        missing: dict[tuple[str, str], None] = {}
        routes, last = self._routes, None
        for entry in entries:
            options = entry.options or DEFAULT_OPTIONS
            key = (entry.handler, options.queue, options.user)
            if key == last:
                continue
            last = key
            if key not in routes:
                lane = (self._queue_for(entry.handler, options), options.user)
                if lane not in self._books.lanes:
                    missing[lane] = None
        return list(missing)

    async def _submit_after_reading(
        self, entries: Sequence[Entry], missing: list[tuple[str, str]], future: asyncio.Future[Answers]
    ) -> None:
        try:
            await self.learn_lanes(missing)
            self.refuse_if_closed()  # the last ids were given back meanwhile
            self._admit(entries, future)
        except ShoestringError as error:
            if not future.done():
                future.set_exception(error)

    async def learn_lanes(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Have the lanes (queue, user) in memory, with their books and buckets if the file knows them."""
        # Again until all are there: while this read, another may have been forgotten.
        while unknown := [key for key in wanted if key not in self._books.lanes]:
            rows, buckets = await self._db.read(find_lanes, unknown)
            for row in rows:
                if (row.queue, row.user) not in self._books.lanes:  # someone else may have asked at the same time
                    self._books.add_stored_lane(row)
            for key in unknown:
                if key not in self._books.lanes:
                    self._books.add_lane(*key)
            for bucket in buckets:
                self._books.fill_bucket(bucket, self._clock.now_ms())

    def _queue_for(self, handler: str, options: Options) -> str:
        if options.queue is not None:
            return options.queue
        spec = self._books.registry.handlers.get(handler)
        return spec.queue if spec is not None else "default"

    def lane_for(self, entry: Entry) -> tuple[str, str]:
        """Return the lane (queue, user) an entry goes to."""
        options = entry.options or DEFAULT_OPTIONS
        return self._queue_for(entry.handler, options), options.user

    def check(self, entry: Entry) -> None:
        """Raise what would refuse `entry` at its admission, whenever that is, as far as it can be known now."""
        options = entry.options or DEFAULT_OPTIONS
        self._check_names(entry, options)
        self._read_options(options, self._clock.now_ms())
        self._check_size(entry)

    def _check_size(self, entry: Entry) -> None:
        size = len(bytes(entry.body))
        if size > self._limits.payload_bytes_max:
            raise PayloadTooLarge(
                f"{entry.handler}: the arguments take {size} bytes, at most {self._limits.payload_bytes_max} "
                "are allowed (limits.payload_bytes_max). Nothing was stored. "
                "Store large data elsewhere and pass its name."
            )

    def _check_names(self, entry: Entry, options: Options) -> None:
        if not 1 <= len(entry.handler) <= _NAME_CHARS_MAX:
            raise ArgumentError(f"a handler's name has 1 to {_NAME_CHARS_MAX} characters. Nothing was stored.")
        if len(options.user) > self._limits.user_chars_max:
            raise ArgumentError(
                f"user has {len(options.user)} characters, at most {self._limits.user_chars_max} are allowed."
            )
        if options.queue is not None and not 1 <= len(options.queue) <= _NAME_CHARS_MAX:
            raise ArgumentError(f"a queue's name has 1 to {_NAME_CHARS_MAX} characters. Nothing was stored.")
        if not f"{entry.handler}{options.queue or ''}{options.user}".isprintable():
            raise ArgumentError(
                "the names of handlers, queues and users hold no control characters. Nothing was stored."
            )

    def _route(self, entry: Entry, options: Options) -> _Route:
        self._check_names(entry, options)
        key = (entry.handler, options.queue, options.user)
        handler = self._books.handler(entry.handler)
        lane = self._books.lanes[self._queue_for(entry.handler, options), options.user]
        limit = lane.queue.config.limit
        spec = handler.spec
        route = _Route(
            handler, lane, limit is not None and limit.charge is Charge.ENQUEUE, spec.arguments.check if spec else None
        )
        if len(self._routes) >= 10_000:
            self._routes.clear()
        self._routes[key] = route
        return route

    # -- admission ------------------------------------------------------------------------------------------------

    def _admit(self, entries: Sequence[Entry], future: asyncio.Future[Answers]) -> None:
        now_ms = self._clock.now_ms()
        first = self._books.new_ids(len(entries))
        answers: Answers = []
        counted: list[tuple[Lane, bool]] = []
        slowest = Durability.VOLATILE
        kept: list[int] = []
        for task_id, entry in enumerate(entries, start=first):
            try:
                durability = self._admit_one(entry, task_id, now_ms, counted)
            except ShoestringError as error:
                answers.append(error)
                continue
            if isinstance(durability, Duplicate):
                answers.append(durability)
                slowest = Durability.RELAXED if slowest is Durability.VOLATILE else slowest
                continue
            answers.append(task_id)
            if durability is Durability.VOLATILE:
                kept.append(task_id)
            elif durability is not slowest and slowest is not Durability.DURABLE:
                slowest = durability
        if slowest is Durability.VOLATILE:
            future.set_result(answers)
            self._committer.want(Haste.LAZY)
            return
        gathering = self._committer.gathering
        gathering.submissions.append(
            Submission(future, answers, slowest is Durability.DURABLE, partial(_take_back, counted), frozenset(kept))
        )
        self._committer.want(Haste.NOW)

    def _admit_one(
        self, entry: Entry, task_id: int, now_ms: int, counted: list[tuple[Lane, bool]]
    ) -> Durability | Duplicate:
        options = entry.options or DEFAULT_OPTIONS
        route = self._routes.get((entry.handler, options.queue, options.user)) or self._route(entry, options)
        body = bytes(entry.body)
        if len(body) > self._limits.payload_bytes_max:
            self._check_size(entry)
        if route.check is not None:
            route.check(body)
        if options is DEFAULT_OPTIONS:
            due_at_ms, extra, priority = 0, NO_EXTRA, 0
        else:
            due_at_ms, extra = self._read_options(options, now_ms)
            priority = options.priority
        if (
            extra.unique is not None
            and (holder := self._committer.gathering.batch.uniques.get(extra.unique)) is not None
        ):
            return Duplicate(holder)  # whether the holder itself loses to a stored task is known after the commit
        lane, handler = route.lane, route.handler
        if route.charged:
            self._charge(lane, now_ms)
        spec = handler.spec
        durability = options.durability or (spec.durability if spec is not None else Durability.RELAXED)
        if extra.unique is not None and durability is Durability.VOLATILE:
            durability = Durability.RELAXED  # the key has to be in the file before the producer may rely on it
        self._store(task_id, lane, handler, priority, due_at_ms, extra, body, durability, now_ms)
        if durability is not Durability.VOLATILE:
            counted.append((lane, due_at_ms > 0))
        return durability

    def _store(
        self, task_id: int, lane: Lane, handler: HandlerState, priority: int, due_at_ms: int, extra: Extra, body: bytes,
        durability: Durability, now_ms: int,
    ) -> None:  # fmt: skip
        gathering = self._committer.gathering
        batch = gathering.batch
        rank = Rank((PRIORITY_MAX - priority) << ID_BITS | task_id)
        crc = zlib.crc32(body)
        columns = (
            handler.id, 0, now_ms, None, 1, crc, body.decode(), None if extra is NO_EXTRA else encode_extra(extra),
        )  # fmt: skip
        lane.ledger.accepted += 1
        gathering.lanes.add(lane)
        if self._journal.on:
            self._journal.enqueued(task_id, handler.name, lane.queue.name, lane.user, due_at_ms)
        if extra.unique is not None:
            batch.uniques[extra.unique] = task_id
        if due_at_ms:
            lane.delayed += 1
            row = (due_at_ms, task_id, lane.id, rank, *columns)
            if durability is Durability.VOLATILE:
                batch.delayed[task_id] = row
                self._committer.want(Haste.SOON)  # it comes due from the disk, perhaps before the lazy window is over
            else:
                batch.accepted_delayed.append(row)
        elif durability is Durability.VOLATILE:
            batch.ready[task_id] = (lane.id, rank, *columns)
            if handler.spec is not None:
                self._offer(Task(lane, rank, handler, 0, now_ms, None, 1, crc, body, extra, stored=False))
        else:
            batch.accepted_ready.append((lane.id, rank, *columns))

    def _read_options(self, options: Options, now_ms: int) -> tuple[int, Extra]:
        """Return when the task is due (0: at once) and what few tasks have."""
        if not PRIORITY_MIN <= options.priority <= PRIORITY_MAX:
            raise ArgumentError(
                f"priority {options.priority} is not within {PRIORITY_MIN}..{PRIORITY_MAX}. Nothing was stored."
            )
        due_at_ms = options.due_at_ms or 0
        if options.delay_ms is not None:
            due_at_ms = now_ms + options.delay_ms
        expires_at_ms = options.expires_at_ms
        if options.expires_in_ms is not None:
            expires_at_ms = now_ms + options.expires_in_ms
        for name, instant_ms in (("run_after", due_at_ms), ("expires", expires_at_ms or 0)):
            if not 0 <= instant_ms <= _INSTANT_MAX_MS:
                raise ArgumentError(f"{name} lies outside the years 1970 to 9999. Nothing was stored.")
        if options.unique is not None and not 1 <= len(options.unique) <= self._limits.unique_chars_max:
            raise ArgumentError(f"unique has 1 to {self._limits.unique_chars_max} characters. Nothing was stored.")
        if expires_at_ms is None and options.unique is None:
            return (due_at_ms if due_at_ms > now_ms else 0), NO_EXTRA
        return (due_at_ms if due_at_ms > now_ms else 0), Extra(expires_at_ms=expires_at_ms, unique=options.unique)

    def _charge(self, lane: Lane, now_ms: int, items: int = 1) -> None:
        bucket = lane.bucket
        assert bucket is not None
        lane.bucket, granted, ready_at_ms = bucket.take(items, now_ms)
        if not granted:
            raise LimitExceeded(
                f"user {lane.user!r} is over the limit of queue {lane.queue.name!r}. Nothing was stored.",
                retry_after=(ready_at_ms - now_ms) / 1000, tokens=lane.bucket.tokens, capacity=lane.bucket.capacity,
            )  # fmt: skip
        self._committer.gathering.buckets.add(lane)

    def charge_items(self, lane: Lane, items: int) -> None:
        """Charge a fan-out's items at admission, where the queue is set so; raise LimitExceeded."""
        limit = lane.queue.config.limit
        if limit is not None and limit.charge is Charge.ENQUEUE:
            self._charge(lane, self._clock.now_ms(), items)

    def admit_internal(self, entry: Entry, now_ms: int) -> None:
        """Store a task the engine itself makes (`then=`), with the present transaction; its lane is in memory.

        It was promised with its job, so it is kept even while the disk is full.
        """
        options = entry.options or DEFAULT_OPTIONS
        route = self._route(entry, options)
        due_at_ms, extra = self._read_options(msgspec.structs.replace(options, unique=None), now_ms)
        task_id = self._books.new_ids(1)
        self._store(
            task_id,
            route.lane,
            route.handler,
            options.priority,
            due_at_ms,
            extra,
            bytes(entry.body),
            Durability.VOLATILE,
            now_ms,
        )
        self._committer.want(Haste.SOON)


def _take_back(counted: list[tuple[Lane, bool]], _batch: Batch) -> None:
    for lane, delayed in counted:
        lane.ledger.accepted -= 1
        lane.delayed -= delayed
