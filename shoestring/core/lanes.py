"""Which task runs next: queues take turns, inside a queue its lanes take turns, inside a lane rank decides.

A lane in `Queue.ring` has tasks in memory and nothing that holds it up. Whatever holds a lane up takes it out of the
ring, and what ends that puts it back, so that choosing never walks over lanes that cannot run:

    parked, or its bucket is empty     back at an instant: `Scheduler.held`, a heap of (instant, lane)
    its next handler has no room       back when a call of that handler ends: `HandlerGate.waiting`
    nothing in memory                  back when a load or a new task brings something

Turns are counted in items (surplus round robin: a lane is served while its credit is positive, and pays afterwards),
so that a user with chunks of 50 gets no more than a user with single tasks.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Protocol

from shoestring.core.bucket import Bucket
from shoestring.core.model import Charge, LaneId, Ledger, QueueConfig, Rank
from shoestring.core.window import Window


def _nobody() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Park:
    """Something is held until an instant, and why."""

    until_ms: int
    reason: str


def longer(one: Park | None, other: Park) -> Park:
    """Return the park that ends later: of calls that were told to wait, one may have been told to wait longer."""
    return other if one is None or one.until_ms < other.until_ms else one


class HandlerGate:
    """How many calls of a handler run, and by queue the lanes that wait for one of them to end."""

    __slots__ = ("limit", "running", "waiting")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.running = 0
        self.waiting: dict[Queue, OrderedDict[Lane, None]] = {}

    @property
    def has_room(self) -> bool:
        return self.limit is None or self.running < self.limit


class Runnable(Protocol):
    """What the scheduler needs to know of a task."""

    @property
    def lane(self) -> Lane: ...
    @property
    def rank(self) -> Rank: ...
    @property
    def items(self) -> int: ...
    @property
    def gate(self) -> HandlerGate: ...


class Lane:
    """The work of one user in one queue."""

    __slots__ = (
        "bucket",
        "credit",
        "delayed",
        "held_until_ms",
        "id",
        "in_ring",
        "is_new",
        "ledger",
        "park",
        "queue",
        "roused_by",
        "running",
        "user",
        "waiting",
        "waiting_counted_to",
        "window",
    )

    def __init__(self, lane_id: LaneId, queue: Queue, user: str, window: Window[int, Runnable]) -> None:
        self.id = lane_id
        self.queue = queue
        self.user = user
        self.window = window
        self.ledger = Ledger()
        self.delayed = 0  # tasks stored as due later
        self.waiting: dict[str, int] = {}  # items passed over because their handler is missing, by its name
        self.waiting_counted_to = -1  # the rank up to which `waiting` is complete; the window may go back behind it
        self.running = 0
        self.credit = 0
        self.in_ring = False
        self.is_new = True  # has no row yet
        self.park: Park | None = None
        self.bucket: Bucket | None = None
        self.held_until_ms = 0
        self.roused_by: list[HandlerGate] = []  # it was brought back for the room of these

    def __lt__(self, other: Lane) -> bool:
        return self.id < other.id


class Queue:
    """The lanes of one queue and what they share."""

    __slots__ = ("config", "in_turn", "name", "park", "quantum", "ring", "running")

    def __init__(self, name: str, config: QueueConfig) -> None:
        self.name = name
        self.config = config
        self.ring: deque[Lane] = deque()
        self.running = 0
        self.quantum = 1  # the dearest task seen so far, so that each turn can afford one
        self.in_turn = False
        self.park: Park | None = None

    @property
    def is_full(self) -> bool:
        return self.config.concurrency is not None and self.running >= self.config.concurrency


class Scheduler:
    """Chooses the next task among all that are in memory. Pure: told the time, waits for nothing."""

    def __init__(self) -> None:
        self.turns: deque[Queue] = deque()
        self.held: list[tuple[int, Lane]] = []
        self.running = 0
        #: While a suspect runs alone nothing else starts.
        self.exclusive = False
        #: Called when a lane is held until an instant that comes before all others: somebody has to wake up then.
        self.on_earlier_release: Callable[[], None] = _nobody

    def activate(self, lane: Lane) -> None:
        """Let a lane take turns again, if it has anything to offer."""
        if lane.in_ring or not lane.window.heap:
            return
        lane.in_ring = True
        lane.queue.ring.append(lane)
        self._enter(lane.queue)

    def _enter(self, queue: Queue) -> None:
        if not queue.in_turn and queue.ring and not queue.is_full:
            queue.in_turn = True
            self.turns.append(queue)

    def next(self, now_ms: int) -> Runnable | None:
        """Take the next task that may run now; the caller runs it and calls `ended`."""
        if self.exclusive:
            return None
        if self.held and self.held[0][0] <= now_ms:
            self.release_held(now_ms)
        turns = self.turns
        while turns:
            queue = turns[0]
            if queue.is_full or (found := self._pick(queue, now_ms)) is None:
                turns.popleft()
                queue.in_turn = False
                continue
            if len(turns) > 1:
                turns.rotate(-1)
            return found
        return None

    def _pick(self, queue: Queue, now_ms: int) -> Runnable | None:
        ring = queue.ring
        while ring:
            lane = ring[0]
            if not lane.window.heap:
                self._leave(lane)
                continue
            if self.hold_if_blocked(lane, now_ms):
                continue
            if lane.credit <= 0 and len(ring) > 1:
                lane.credit += queue.quantum
                ring.rotate(-1)
                continue
            found = lane.window.heap[0][1]
            gate = found.gate
            if gate.limit is not None and gate.running >= gate.limit:
                self._leave(lane)
                gate.waiting.setdefault(queue, OrderedDict())[lane] = None
                continue
            lane.window.pop()
            self._start(lane, found, gate)
            if lane.roused_by:
                self._pass_on(lane)
            return found
        return None

    def _start(self, lane: Lane, found: Runnable, gate: HandlerGate) -> None:
        queue, cost = lane.queue, found.items
        if cost > queue.quantum:
            queue.quantum = cost
        lane.credit = lane.credit - cost if len(queue.ring) > 1 else 0
        lane.running += 1
        queue.running += 1
        gate.running += 1
        self.running += 1

    def _leave(self, lane: Lane) -> None:
        # Always the head of its ring: that is the only place choosing looks at.
        lane.queue.ring.popleft()
        lane.in_ring = False
        if lane.roused_by:
            self._pass_on(lane)

    def _rouse(self, gate: HandlerGate, queue: Queue) -> None:
        """Let the next lane of `queue` that waits for the gate take turns again."""
        waiting = gate.waiting[queue]
        while waiting:
            lane, _ = waiting.popitem(last=False)
            self.activate(lane)
            if lane.in_ring:
                lane.roused_by.append(gate)
                break
        if not waiting:
            del gate.waiting[queue]

    def _pass_on(self, lane: Lane) -> None:
        """Offer the room a lane was brought back for, and did not use, to the next that waits for it.

        Without this a lane that was parked or emptied while it waited would take the turn and leave the room empty,
        and those behind it would wait until another call of the handler happens to end.
        """
        roused_by, lane.roused_by = lane.roused_by, []
        for gate in roused_by:
            if gate.has_room and lane.queue in gate.waiting:
                self._rouse(gate, lane.queue)

    def ended(self, found: Runnable) -> None:
        """Give back what a task occupied while it ran."""
        lane, gate = found.lane, found.gate
        lane.running -= 1
        lane.queue.running -= 1
        gate.running -= 1
        self.running -= 1
        if gate.waiting:
            for queue in list(gate.waiting):
                self._rouse(gate, queue)
        self._enter(lane.queue)

    def hold_if_blocked(self, lane: Lane, now_ms: int) -> bool:
        """Take the lane at the head of its ring out if it is parked or its user is out of tokens."""
        until_ms = blocked_until_ms(lane, now_ms)
        if until_ms <= now_ms:
            return False
        self._leave(lane)
        self.hold(lane, until_ms)
        return True

    def hold(self, lane: Lane, until_ms: int) -> None:
        """Bring a lane that is in no ring back at `until_ms`."""
        if lane.held_until_ms != until_ms:
            lane.held_until_ms = until_ms
            heappush(self.held, (until_ms, lane))
            if self.held[0][1] is lane:
                self.on_earlier_release()

    def release_held(self, now_ms: int) -> None:
        """Bring back the lanes whose instant has come."""
        while self.held and self.held[0][0] <= now_ms:
            until_ms, lane = heappop(self.held)
            if lane.held_until_ms == until_ms:
                lane.held_until_ms = 0
                self.activate(lane)

    def next_release_ms(self) -> int | None:
        """Return when the first held lane comes back."""
        return self.held[0][0] if self.held else None


def blocked_until_ms(lane: Lane, now_ms: int) -> int:
    """Return until when the lane's parks and its bucket hold it up; 0 if nothing does."""
    until_ms = 0
    if lane.park is not None:
        until_ms = lane.park.until_ms
    if lane.queue.park is not None:
        until_ms = max(until_ms, lane.queue.park.until_ms)
    bucket = lane.bucket
    if bucket is not None and lane.queue.config.limit is not None and lane.queue.config.limit.charge is Charge.RUN:
        until_ms = max(until_ms, bucket.ready_at_ms(1, now_ms))
    return until_ms


def parked_lanes(lanes: Iterator[Lane], now_ms: int) -> list[Lane]:
    """Return the lanes that a park holds up now."""
    return [
        lane
        for lane in lanes
        if (lane.park is not None and lane.park.until_ms > now_ms)
        or (lane.queue.park is not None and lane.queue.park.until_ms > now_ms)
    ]
