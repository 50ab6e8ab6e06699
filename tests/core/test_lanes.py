"""Turn taking: fair between users, in order within one, and no lane is ever forgotten."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shoestring.core.bucket import Bucket
from shoestring.core.lanes import HandlerGate, Lane, Park, Queue, Scheduler, blocked_until_ms, parked_lanes
from shoestring.core.model import Charge, LaneId, Limit, QueueConfig, Rank
from shoestring.core.window import Window

NOW_MS = 1_000_000


@dataclass(frozen=True, eq=False)
class Work:
    """A task, as far as the scheduler looks."""

    lane: Lane
    rank: Rank
    gate: HandlerGate
    items: int = 1


class Place:
    """Queues, lanes and gates around one scheduler."""

    def __init__(self) -> None:
        self.scheduler = Scheduler()
        self.lanes: list[Lane] = []
        self.ranks = 0
        self.free = HandlerGate(None)

    def lane(self, queue: Queue, user: str = "") -> Lane:
        made = Lane(LaneId(len(self.lanes) + 1), queue, user or f"u{len(self.lanes)}", Window(1_000))
        made.window.complete = True
        self.lanes.append(made)
        return made

    def add(self, lane: Lane, *, gate: HandlerGate | None = None, items: int = 1, rank: int | None = None) -> Work:
        self.ranks += 1
        work = Work(lane, Rank(self.ranks if rank is None else rank), gate or self.free, items)
        assert lane.window.accepts(work.rank)
        lane.window.push(work.rank, work)
        self.scheduler.activate(lane)
        return work

    def next(self, now_ms: int = NOW_MS) -> Work | None:
        found = self.scheduler.next(now_ms)
        assert found is None or isinstance(found, Work)
        return found

    def drain(self, now_ms: int = NOW_MS) -> list[Work]:
        """Run everything that can run, one after the other."""
        done: list[Work] = []
        while (found := self.next(now_ms)) is not None:
            done.append(found)
            self.scheduler.ended(found)
        return done


# -- turns --------------------------------------------------------------------------------------------------------


def test_a_lane_runs_its_tasks_by_rank() -> None:
    """Within one user priority decides, then age."""
    place = Place()
    lane = place.lane(Queue("q", QueueConfig()))
    works = {rank: place.add(lane, rank=rank) for rank in (5, 1, 9, 3)}

    assert [works[rank] for rank in (1, 3, 5, 9)] == place.drain()


def test_users_take_turns_however_much_each_has() -> None:
    """One user's two million tasks must not keep another's ten waiting."""
    place = Place()
    queue = Queue("q", QueueConfig())
    busy, modest = place.lane(queue, "busy"), place.lane(queue, "modest")
    for _ in range(100):
        place.add(busy)
    for _ in range(10):
        place.add(modest)

    first = [work.lane.user for work in place.drain()][:20]

    assert Counter(first) == {"busy": 10, "modest": 10}


def test_turns_are_counted_in_items() -> None:
    """A user whose tasks are chunks of 50 gets no more than one with single tasks."""
    place = Place()
    queue = Queue("q", QueueConfig())
    chunks, singles = place.lane(queue, "chunks"), place.lane(queue, "singles")
    for _ in range(20):
        place.add(chunks, items=50)
    for _ in range(1_000):
        place.add(singles)

    shares: Counter[str] = Counter()
    for work in place.drain():
        shares[work.lane.user] += work.items
        if shares["chunks"] < 1_000 and shares["singles"] < 1_000:
            assert abs(shares["chunks"] - shares["singles"]) <= 100
    assert shares == {"chunks": 1_000, "singles": 1_000}


def test_a_user_alone_gathers_no_debt() -> None:
    """Whoever used what nobody else wanted must not wait for it when others come."""
    place = Place()
    queue = Queue("q", QueueConfig())
    early, late = place.lane(queue, "early"), place.lane(queue, "late")
    for _ in range(100):
        place.add(early, items=50)
    while len(early.window) > 50:
        found = place.next()
        assert found is not None
        place.scheduler.ended(found)
    for _ in range(50):
        place.add(late, items=50)

    assert Counter(work.lane.user for work in place.drain()[:20]) == {"early": 10, "late": 10}


def test_queues_take_turns() -> None:
    """A long queue must not hold up a short one."""
    place = Place()
    long, short = place.lane(Queue("long", QueueConfig())), place.lane(Queue("short", QueueConfig()))
    for _ in range(50):
        place.add(long)
    for _ in range(5):
        place.add(short)

    assert Counter(work.lane.queue.name for work in place.drain()[:10]) == {"long": 5, "short": 5}


def test_while_a_suspect_runs_alone_nothing_else_starts() -> None:
    """If it kills the process again, it has to be the only suspect."""
    place = Place()
    place.add(place.lane(Queue("q", QueueConfig())))
    place.scheduler.exclusive = True

    assert place.next() is None
    place.scheduler.exclusive = False
    assert place.next() is not None


# -- what holds a lane up -----------------------------------------------------------------------------------------


def test_a_parked_lane_comes_back_at_its_instant_and_not_before() -> None:
    """The other side said when; asking earlier costs a refusal, later is time lost."""
    place = Place()
    lane = place.lane(Queue("q", QueueConfig()))
    work = place.add(lane)
    lane.park = Park(NOW_MS + 500, "429")

    assert place.next(NOW_MS) is None
    assert place.scheduler.next_release_ms() == NOW_MS + 500
    assert place.next(NOW_MS + 499) is None
    assert place.next(NOW_MS + 500) is work


def test_who_sleeps_is_told_of_an_earlier_release() -> None:
    """A lane that is parked while everybody sleeps has nobody else to wake it."""
    place = Place()
    told: list[int | None] = []
    place.scheduler.on_earlier_release = lambda: told.append(place.scheduler.next_release_ms())
    queue = Queue("q", QueueConfig())
    for delay_ms in (500, 900, 200):
        lane = place.lane(queue)
        place.add(lane)
        lane.park = Park(NOW_MS + delay_ms, "")
        place.next()

    assert [NOW_MS + 500, NOW_MS + 200] == told


def test_a_parked_queue_holds_all_its_lanes_and_no_other() -> None:
    """One refusal is enough for everybody who would call the same service."""
    place = Place()
    parked, other = Queue("parked", QueueConfig()), Queue("other", QueueConfig())
    held = [place.lane(parked), place.lane(parked)]
    for lane in (*held, place.lane(other)):
        place.add(lane)
    parked.park = Park(NOW_MS + 1, "")

    assert [work.lane.queue.name for work in place.drain()] == ["other"]
    assert parked_lanes(iter(place.lanes), NOW_MS) == held
    assert [work.lane for work in place.drain(NOW_MS + 1)] == held


def test_an_empty_bucket_holds_a_lane_until_a_token_is_there() -> None:
    """A user over their limit waits without holding up the others."""
    place = Place()
    queue = Queue("q", QueueConfig(limit=Limit(capacity=5, rate=2, charge=Charge.RUN)))
    poor, rich = place.lane(queue), place.lane(queue)
    poor.bucket, rich.bucket = Bucket(0, 5, 2, NOW_MS), Bucket(5, 5, 2, NOW_MS)
    for lane in (poor, rich):
        place.add(lane)

    assert [work.lane for work in place.drain()] == [rich]
    assert blocked_until_ms(poor, NOW_MS) == NOW_MS + 500
    assert [work.lane for work in place.drain(NOW_MS + 500)] == [poor]


def test_a_bucket_charged_at_enqueue_holds_nothing_up() -> None:
    """What was paid for at the door runs."""
    place = Place()
    lane = place.lane(Queue("q", QueueConfig(limit=Limit(capacity=1, rate=1, charge=Charge.ENQUEUE))))
    lane.bucket = Bucket(0, 1, 1, NOW_MS)
    work = place.add(lane)

    assert place.next() is work


def test_a_full_queue_lets_others_run_and_takes_up_again_when_one_ends() -> None:
    """A concurrency limit is the limit of one queue, not of the daemon."""
    place = Place()
    narrow = place.lane(Queue("narrow", QueueConfig(concurrency=1)))
    wide = place.lane(Queue("wide", QueueConfig()))
    first, second, other = place.add(narrow), place.add(narrow), place.add(wide)

    assert [place.next(), place.next(), place.next()] == [first, other, None]
    place.scheduler.ended(first)
    assert place.next() is second


# -- handlers with a limit of their own ---------------------------------------------------------------------------


def test_a_handler_at_its_limit_holds_only_lanes_that_need_it() -> None:
    """Eight slow calls must not keep other handlers of the queue waiting."""
    place = Place()
    queue, slow = Queue("q", QueueConfig()), HandlerGate(1)
    one, two, three = (place.lane(queue) for _ in range(3))
    first, second, other = place.add(one, gate=slow), place.add(two, gate=slow), place.add(three)

    assert [place.next(), place.next(), place.next()] == [first, other, None]
    place.scheduler.ended(first)
    assert place.next() is second


def test_new_tasks_do_not_make_a_lane_wait_twice() -> None:
    """A million tasks for a busy handler must neither fill the memory nor put their user before the others."""
    place = Place()
    queue, gate = Queue("q", QueueConfig()), HandlerGate(1)
    crowd, single = place.lane(queue), place.lane(queue)
    running = place.add(crowd, gate=gate)
    assert place.next() is running
    for _ in range(50):
        place.add(crowd, gate=gate)
        assert place.next() is None
    patient = place.add(single, gate=gate)
    assert place.next() is None

    assert sum(len(lanes) for lanes in gate.waiting.values()) == 2
    order = []
    for _ in range(3):  # its turn, and a turn of the crowd before and after
        place.scheduler.ended(running)
        found = place.next()
        assert found is not None
        running = found
        order.append(found)
    assert patient in order


def test_a_lane_that_cannot_use_a_handlers_room_leaves_it_to_the_next() -> None:
    """Parked, emptied or with another task first: the room must not stay empty while others wait for it."""
    for spoil in ("park", "empty", "another first"):
        place = Place()
        queue, gate, other = Queue("q", QueueConfig()), HandlerGate(1), HandlerGate(1)
        runs, chosen, waits = (place.lane(queue) for _ in range(3))
        running = place.add(runs, gate=gate)
        assert place.next() is running
        mine, theirs = place.add(chosen, gate=gate), place.add(waits, gate=gate)
        assert place.next() is None
        if spoil == "park":
            chosen.park = Park(NOW_MS + 3_600_000, "429")
        elif spoil == "empty":
            chosen.window.remove({mine.rank})
        else:
            place.add(chosen, gate=other, rank=0)

        place.scheduler.ended(running)

        assert theirs in (place.next(), place.next()), spoil


def test_a_full_queue_does_not_keep_a_handlers_room_from_other_queues() -> None:
    """A handler may be called through two queues; the one that is full is not the other's business."""
    place = Place()
    gate = HandlerGate(1)
    full, free = Queue("full", QueueConfig(concurrency=1)), Queue("free", QueueConfig())
    blocked, waits, runs, fills = place.lane(full), place.lane(free), place.lane(free), place.lane(full)
    running = place.add(runs, gate=gate)
    assert place.next() is running
    place.add(blocked, gate=gate)
    assert place.next() is None
    theirs = place.add(waits, gate=gate)
    assert place.next() is None
    filling = place.add(fills)
    assert place.next() is filling

    place.scheduler.ended(running)

    assert place.next() is theirs


# -- everything at once -------------------------------------------------------------------------------------------


class NoLaneIsForgotten(RuleBasedStateMachine):
    """Whatever comes, ends, is parked or cancelled: when nothing can be chosen, every lane with work has a reason."""

    @initialize()
    def start(self) -> None:
        self.now_ms = NOW_MS
        self.place = Place()
        self.gates = [HandlerGate(1), HandlerGate(2), HandlerGate(None)]
        limited = QueueConfig(concurrency=2)
        bucket = QueueConfig(limit=Limit(capacity=3, rate=2, charge=Charge.RUN))
        self.queues = [Queue("free", QueueConfig()), Queue("two", limited), Queue("bucket", bucket)]
        for queue, lanes in zip(self.queues, (3, 2, 1), strict=True):
            for _ in range(lanes):
                lane = self.place.lane(queue)
                if queue.config.limit is not None:
                    lane.bucket = Bucket.full(capacity=3, rate=2, now_ms=NOW_MS)
        self.running: list[Work] = []

    @rule(lane=st.integers(0, 5), gate=st.sampled_from([0, 0, 1, 2]), items=st.integers(1, 3), early=st.booleans())
    def work_comes(self, lane: int, gate: int, items: int, early: bool) -> None:
        rank = -self.place.ranks if early else None
        self.place.add(self.place.lanes[lane], gate=self.gates[gate], items=items, rank=rank)

    @rule(gate=st.integers(0, 1))
    def all_users_of_a_queue_call_one_handler(self, gate: int) -> None:
        for lane in self.place.lanes[:3]:
            self.place.add(lane, gate=self.gates[gate])
        self.all_that_can_run_is_chosen()

    @rule()
    def all_that_can_run_is_chosen(self) -> None:
        while self.choose():
            pass
        for lane in self.place.lanes:
            if len(lane.window):
                self.must_have_a_reason(lane)

    @rule()
    def the_next_is_chosen(self) -> None:
        self.choose()

    def choose(self) -> bool:
        found = self.place.next(self.now_ms)
        if found is None:
            return False
        assert blocked_until_ms(found.lane, self.now_ms) <= self.now_ms
        assert all(found.rank < rank for rank, _ in found.lane.window.heap)
        if found.lane.bucket is not None:
            found.lane.bucket = found.lane.bucket.spend(found.items, self.now_ms)
        self.running.append(found)
        return True

    def must_have_a_reason(self, lane: Lane) -> None:
        until_ms = blocked_until_ms(lane, self.now_ms)
        first = min(lane.window.heap, key=lambda entry: entry[0])[1]
        if lane.queue.is_full:
            comes_back = lane.in_ring or self.waits_for_a_full_gate(lane) or self.is_held(lane)
            assert comes_back, f"lane {lane.id} left the ring of a full queue"
        elif until_ms > self.now_ms:
            comes_back = self.is_held(lane) or self.waits_for_a_full_gate(lane)
            assert comes_back, f"lane {lane.id} is held up and nothing will bring it back"
        else:
            assert not first.gate.has_room, f"lane {lane.id} could run"
            assert self.waits_for_a_full_gate(lane), f"lane {lane.id} does not wait for its handler"

    def waits_for_a_full_gate(self, lane: Lane) -> bool:
        return any(not gate.has_room and lane in gate.waiting.get(lane.queue, ()) for gate in self.gates)

    def is_held(self, lane: Lane) -> bool:
        return lane.held_until_ms > self.now_ms and (lane.held_until_ms, lane) in self.place.scheduler.held

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_ends(self, data: st.DataObject) -> None:
        work = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        self.place.scheduler.ended(work)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def one_is_put_back(self, data: st.DataObject) -> None:
        work = self.running.pop(data.draw(st.integers(0, len(self.running) - 1)))
        work.lane.window.hold(work.rank, work)
        self.place.scheduler.activate(work.lane)
        self.place.scheduler.ended(work)

    @rule(lane=st.integers(0, 5), delay_ms=st.integers(1, 2_000))
    def a_lane_is_parked(self, lane: int, delay_ms: int) -> None:
        self.lengthen(self.place.lanes[lane], delay_ms)

    @rule(queue=st.integers(0, 2), delay_ms=st.integers(1, 2_000))
    def a_queue_is_parked(self, queue: int, delay_ms: int) -> None:
        self.lengthen(self.queues[queue], delay_ms)

    def lengthen(self, held: Lane | Queue, delay_ms: int) -> None:
        """A park is never cut short: what the other side said of a later instant still stands."""
        until_ms = max(self.now_ms + delay_ms, held.park.until_ms if held.park is not None else 0)
        held.park = Park(until_ms, "")

    @rule(lane=st.integers(0, 5), data=st.data())
    def some_are_cancelled(self, lane: int, data: st.DataObject) -> None:
        window = self.place.lanes[lane].window
        ranks = [rank for rank, _ in window.heap]
        window.remove(set(data.draw(st.lists(st.sampled_from(ranks))) if ranks else []))
        self.place.scheduler.activate(self.place.lanes[lane])  # what is first now may need something else

    @rule(ms=st.sampled_from([1, 100, 1_000]))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @invariant()
    def limits_hold_and_books_agree(self) -> None:
        for gate in self.gates:
            assert gate.running == sum(work.gate is gate for work in self.running)
            assert gate.limit is None or gate.running <= gate.limit
            assert sum(len(lanes) for lanes in gate.waiting.values()) <= len(self.place.lanes)
        for queue in self.queues:
            assert queue.running == sum(work.lane.queue is queue for work in self.running)
            assert len(queue.ring) == len(set(queue.ring))
            assert not (queue.config.concurrency is not None and queue.running > queue.config.concurrency)
        assert self.place.scheduler.running == len(self.running)

    def teardown(self) -> None:
        """With nothing in the way any more, everything runs."""
        while self.running:
            self.place.scheduler.ended(self.running.pop())
        while any(len(lane.window) for lane in self.place.lanes):
            self.now_ms += 10_000
            assert self.place.drain(self.now_ms), "work is left and nothing can be chosen"


TestNoLaneIsForgotten = NoLaneIsForgotten.TestCase
TestNoLaneIsForgotten.settings = settings(max_examples=150, stateful_step_count=50)
