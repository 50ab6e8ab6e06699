"""What somebody standing beside the queue sees: who was accepted, who was called when, and how each call ended.

The world outlives the generations of the daemon. It decides nothing; `invariants` looks at it.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shoestring.core.bucket import Bucket
from shoestring.core.clock import SteadyWall
from shoestring.core.signals import Scope
from shoestring.engine.calls import Slot
from shoestring.engine.engine import Engine
from shoestring.engine.records import Task
from tests.sim.loop import Killed, SimLoop
from tests.sim.script import Subject
from tests.sim.violation import Violation

EPOCH_MS = 1_800_000_000_000


class End(enum.Enum):
    """What a call came to for one subject."""

    OK = "ok"
    BURNED = "burned"  # it failed, and the attempt counts
    FREE = "free"  # it runs again, and the attempt does not count
    FINAL = "final"  # it never runs again


@dataclass(slots=True, eq=False)
class Call:
    """One call of a handler for one subject; a batch makes one for each of its items."""

    subject: Subject
    generation: int
    slot: Slot
    task: Task
    attempt: int  # the engine's number of it, from 1
    started: int  # when, in `World.seq`
    started_ms: int
    first_of_batch: bool = True
    end: End | None = None
    ended: int = 0
    ended_ms: int = 0
    not_before_ms: int = 0  # what it asked for

    @property
    def lane(self) -> tuple[str, str]:
        return self.task.lane.queue.name, self.task.lane.user

    @property
    def was_abandoned(self) -> bool:
        return self.slot.abandoned


@dataclass(slots=True)
class Held:
    """Something that was parked by a call."""

    until_ms: int
    since: int
    from_s: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """A cancellation that was confirmed."""

    was_running: bool  # and told to stop
    told: int  # what was committed then


@dataclass(slots=True)
class SimClock:
    """The machine's clocks: one that only goes on, and one that people set."""

    loop: SimLoop
    steady: SteadyWall
    stepped_ms: int
    latest_ms: int  # the latest it showed, in this generation or one before
    was_set: bool = False

    def now_ms(self) -> int:
        now_ms = self.steady.read(self.wall_ms(), self.loop.time())
        if now_ms > self.latest_ms:
            self.latest_ms = now_ms
        return now_ms

    def mono(self) -> float:
        return self.loop.time()

    def wall_ms(self) -> int:
        return EPOCH_MS + int(self.loop.time() * 1000) + self.stepped_ms


@dataclass(slots=True, eq=False)
class World:
    """One run of the simulation."""

    seed: int
    verbose: bool = False
    is_calm: bool = False  # nothing is slow, nothing fails
    subjects: dict[int, Subject] = field(default_factory=dict)
    lives: dict[tuple[int, int], list[Call]] = field(default_factory=dict)
    running: dict[Call, None] = field(default_factory=dict)
    held: dict[tuple[Scope, str | tuple[str, str]], Held] = field(default_factory=dict)
    #: What run-charged buckets hold by the world's own count: now, and as the last commit found it.
    buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    committed_buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)
    chunks: dict[int, list[int]] = field(default_factory=dict)  # the items of each chunk ever stored
    asked_to_cancel: set[int] = field(default_factory=set)
    cancelled_tasks: dict[int, Cancelled] = field(default_factory=dict)
    cancelled_jobs: dict[int, int] = field(default_factory=dict)  # what was committed when that was confirmed
    replays: int = 0  # asked for
    replayed: int = 0  # tasks confirmed
    asking: dict[int, tuple[str, int]] = field(default_factory=dict)  # who waits for an answer, and for what
    grew_s: float = 0.0  # when items were last handed over
    seq: int = 0
    committed_seq: int = 0  # what happened before this is in the file
    stepped_ms: int = 0  # by how much the wall clock was set so far
    generation: int = 0
    crashes: list[int] = field(default_factory=list)  # generations that ended without saying so
    power_cuts: int = 0
    lost_after: dict[int, int] = field(default_factory=dict)  # by generation: what its crash left in the file
    suspects: set[tuple[int, int]] = field(default_factory=set)  # (lane, rank) of what the dead process had in hand
    dead: bool = True  # the process is gone; who still talks is not heard
    counts: dict[str, int] = field(default_factory=dict)
    violation: Violation | None = None
    loop: SimLoop | None = None
    clock: SimClock | None = None
    engine: Engine | None = None
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    def say(self, event: str, *what: object) -> None:
        """Add a line to the trace."""
        assert self.loop is not None
        self.seq += 1
        self.counts[event] = self.counts.get(event, 0) + 1
        line = f"{self.loop.time():12.6f} g{self.generation} {event} {' '.join(map(str, what))}"
        self._digest.update(line.encode())
        if self.verbose:
            print(line)

    def digest(self) -> str:
        return self._digest.hexdigest()[:16]

    def fail(self, name: str, detail: str) -> None:
        """Note that a promise was broken, and end the run."""
        if self.violation is not None or self.dead:
            return
        self.violation = Violation(name, detail)
        self.say("VIOLATION", name, detail)
        assert self.loop is not None
        if self.loop.is_running():
            self.loop.call_soon(_kill)

    def now_ms(self) -> int:
        assert self.clock is not None
        return self.clock.now_ms()

    @contextmanager
    def asks(self, what: str) -> Iterator[None]:
        """Note that somebody waits for an answer."""
        self.seq += 1
        me = self.seq
        self.asking[me] = what, me
        try:
            yield
        finally:
            self.asking.pop(me, None)

    def hush(self) -> None:
        """Hear nobody any more: the process is gone."""
        self.dead = True
        if self.engine is not None:
            self.suspects = {
                (int(slot.runs.lane.id), int(slot.runs.rank)) for slot in self.engine.runner.slots.values() if slot.runs
            } | {(int(call.task.lane.id), int(call.task.rank)) for call in self.running}
        self.asking.clear()

    @property
    def latest_ms(self) -> int:
        assert self.clock is not None
        return self.clock.latest_ms

    # -- calls ----------------------------------------------------------------------------------------------------

    def slot(self) -> Slot:
        """Return the slot whose handler asks."""
        assert self.engine is not None
        me = asyncio.current_task()
        return next(slot for slot in self.engine.runner.slots.values() if slot.work is me)

    def crashed_since(self, generation: int) -> bool:
        return any(each >= generation for each in self.crashes)

    def is_settled(self, call: Call) -> bool:
        """Tell whether what the call came to is in the file."""
        return call.end is not None and call.ended <= self.lost_after.get(call.generation, self.committed_seq)

    def job_lane(self, job_id: int | None) -> tuple[str, str]:
        assert self.engine is not None and job_id is not None
        lane = self.engine.books.jobs[job_id].lane
        return lane.queue.name, lane.user

    def park(self, lane: tuple[str, str], scope: Scope, until_ms: int, *, slack_s: float = 0.0) -> None:
        key = _park_key(lane, scope)
        found = self.held.get(key)
        if found is None or found.until_ms < until_ms:
            assert self.loop is not None
            self.held[key] = Held(until_ms, self.seq, self.loop.time() + slack_s)

    def parked_until_ms(self, queue: str, user: str, *, slack_s: float = 0.0) -> int:
        keys: list[tuple[Scope, str | tuple[str, str]]] = [("lane", (queue, user)), ("queue", queue), ("user", user)]
        found = [self.held[key] for key in keys if key in self.held]
        assert self.loop is not None
        now_s = self.loop.time() - slack_s
        return max((each.until_ms for each in found if each.from_s <= now_s), default=0)

    def crashed(self) -> None:
        """The process is gone, and with it what was not committed."""
        self.crashes.append(self.generation)
        self.lost_after[self.generation] = self.committed_seq
        self.held = {key: held for key, held in self.held.items() if held.since <= self.committed_seq}
        self.buckets = dict(self.committed_buckets)
        # One that ran was told to stop, and comes to its outcome when its handler has: a crash may come before.
        self.cancelled_tasks = {task_id: it for task_id, it in self.cancelled_tasks.items() if not it.was_running}


def _park_key(lane: tuple[str, str], scope: Scope) -> tuple[Scope, str | tuple[str, str]]:
    queue, user = lane
    names: dict[Scope, str | tuple[str, str]] = {"lane": lane, "queue": queue, "user": user}
    return scope, names[scope]


def _kill() -> None:
    raise Killed
