"""Brings work into memory when it is about to be needed: tasks of hungry lanes, and delayed tasks that are due.

Nothing is polled. The dispatcher sleeps until somebody wakes it or until the next instant it knows of: the first
delayed task, the first lane that comes back from a park. It clears the flag and then looks, never the other way
round: a wake-up that came while it looked is seen at the next turn.

What is in memory is in `owned`, by task id, from the load until the commit of its outcome. A load leaves out what is
owned: after a window was trimmed the disk is read again from an earlier place, where running tasks still stand.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable
from typing import Final

import msgspec

from shoestring.core.clock import Clock
from shoestring.core.fanout import ItemsLeft
from shoestring.core.lanes import Lane, Runnable, Scheduler
from shoestring.core.model import JobId, Rank, id_of
from shoestring.core.window import Window
from shoestring.engine.books import Books
from shoestring.engine.committer import Committer, Haste
from shoestring.engine.records import NO_EXTRA, Chunk, Task
from shoestring.store.batch import Batch
from shoestring.store.db import Db
from shoestring.store.rows import Row
from shoestring.store.tasks import ChunkRow, Loaded, TaskRow, due_after, load_delayed, load_ready_of

#: Delayed tasks moved to `ready` in one transaction, and lanes read in one trip.
_DUE_AT_ONCE: Final = 1_000
_LANES_AT_ONCE: Final = 64
#: A sleep is never longer than this, so that a clock that was set is noticed.
_SLEEP_MAX_S: Final = 30.0

#: Decides what becomes of a task that must not run (damaged, expired, void, one crash too many): True if it was ended.
Gatekeeper = Callable[[Task], bool]


class Dispatcher:
    def __init__(
        self,
        *,
        db: Db,
        clock: Clock,
        scheduler: Scheduler,
        books: Books,
        committer: Committer,
        owned: dict[int, Task],
        prefetch: int,
        timer_heap: int,
        wake_runner: Callable[[], None],
        end_unrunnable: Gatekeeper,
        looked: Callable[[], None],
    ) -> None:
        self._db = db
        self._clock = clock
        self._scheduler = scheduler
        self._books = books
        self._committer = committer
        self._owned = owned
        self._prefetch = prefetch
        self._wake_runner = wake_runner
        self._end_unrunnable = end_unrunnable
        self._looked = looked
        self._timers: Window[tuple[int, int], None] = Window(timer_heap)
        self._hungry: dict[Lane, None] = {}
        self._wake = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        scheduler.on_earlier_release = self._wake.set
        self.doomed: set[int] = set()  # being cancelled: not to be taken into memory
        self.other_instants: list[Callable[[int], int | None]] = []  # what else comes due, asked for at each look

    def wake(self) -> None:
        self._wake.set()

    def open(self) -> None:
        """Start from what the file holds: all lanes are hungry, and timers are unknown."""
        for lane in self._books.lanes.values():
            if not lane.window.complete:
                self._hungry[lane] = None
        self._wake.set()

    # -- what comes in --------------------------------------------------------------------------------------------

    def offer(self, task: Task) -> bool:
        """Hold a task in memory if its lane's window wants it; otherwise it is left to the disk."""
        window = task.lane.window
        if not window.accepts(task.rank):
            self.feed(task.lane)
            return False
        self._hold(task)
        return True

    def put_back(self, task: Task) -> None:
        """Return a task that was taken from its lane and did not come to an outcome."""
        task.lane.window.hold(task.rank, task)
        self._scheduler.activate(task.lane)
        self._wake_runner()

    def committed(self, batch: Batch) -> None:
        """Take what was just stored into memory, as far as there is room and nothing before it is left on disk."""
        passed, missing = (0, 0), self._books.missing_handlers
        for row in batch.accepted_ready:
            if missing and row[2] in missing:
                self._pass_over(row)
                continue
            lane_id, rank = row[0], row[1]
            # What comes after a task that was left to the disk is left to it, too: one look for a whole burst.
            if (lane_id != passed[0] or rank < passed[1]) and not self._offer_row(row):  # type: ignore[operator]
                passed = (lane_id, rank)  # type: ignore[assignment]
        for task_id, row in batch.ready.items():
            if row[2] in missing:
                self._pass_over(row)
            elif task_id not in self._owned:
                self._offer_row(row)
        for row in (*batch.accepted_delayed, *batch.delayed.values()):
            key = (_int(row[0]), _int(row[1]))
            if self._timers.accepts(key):
                self._timers.push(key, None)
                if self._timers.heap[0][0] == key:
                    self._wake.set()
        self._timers.trim()

    def _offer_row(self, row: Row) -> bool:
        """Hold a task that was just stored; False if its lane's window leaves it, and all after it, to the disk."""
        lane = self._books.lanes_by_id[_int(row[0])]
        rank = _int(row[1])
        if not lane.window.accepts(rank):
            self.feed(lane)
            return False
        handler = self._books.handlers_by_id[_int(row[2])]
        if row[5] is not None:
            # Its items are in the batch as well, but looking for them there is dearer than reading a window at a time.
            self._read_again(lane, rank - 1)
            return True
        extra = NO_EXTRA if row[9] is None else msgspec.json.decode(str(row[9]), type=type(NO_EXTRA))
        task = Task(
            lane,
            Rank(rank),
            handler,
            _int(row[3]),
            _int(row[4]),
            None,
            1,
            _int(row[7]),
            str(row[8]).encode(),
            extra,
            stored=True,
        )
        self._hold(task)
        return True

    def _pass_over(self, row: Row) -> None:
        """Count a task that was just stored and waits for its handler, unless a load is still to come by it."""
        lane, rank = self._books.lanes_by_id[_int(row[0])], _int(row[1])
        _note_how_far(lane)
        if lane.window.complete:
            lane.waiting_counted_to = max(lane.waiting_counted_to, rank)
        if rank <= lane.waiting_counted_to:
            name = self._books.handlers_by_id[_int(row[2])].name
            lane.waiting[name] = lane.waiting.get(name, 0) + _int(row[6])

    def take_out(self, lane: Lane, ranks: set[int]) -> None:
        """Hold these tasks no longer; somebody ended them."""
        lane.window.remove(ranks)
        self.feed(lane)

    def count_again(self, lane: Lane) -> None:
        """Look again at a lane after some of it was deleted: what is next, and how much waits for a handler."""
        self.feed(lane)
        if lane.waiting:
            self._read_again(lane, -1)
            lane.waiting, lane.waiting_counted_to = {}, -1

    def _read_again(self, lane: Lane, before: int) -> None:
        _note_how_far(lane)
        lane.window.rewind(before)
        self._hungry[lane] = None
        self._wake.set()

    def _hold(self, task: Task) -> None:
        self._owned[task.id] = task
        window = task.lane.window
        window.push(task.rank, task)
        if len(window) > 2 * window.capacity:
            self._trim(task.lane)
        self._scheduler.activate(task.lane)
        self._wake_runner()

    def _trim(self, lane: Lane) -> None:
        _note_how_far(lane)
        for dropped in lane.window.trim():
            task_id = id_of(dropped.rank)
            if task_id in self._committer.gathering.chunks:
                lane.window.hold(dropped.rank, dropped)  # read again now, it would not know what it did last
            else:
                del self._owned[task_id]

    def feed(self, lane: Lane) -> None:
        """Have the lane's window filled if it runs low and the disk has more."""
        window = lane.window
        if len(window.heap) * 2 > window.capacity or lane in self._hungry:
            return
        if window.wants_load(self._low(lane)):
            self._hungry[lane] = None
            self._wake.set()

    def _low(self, lane: Lane) -> int:
        return self._share(lane) // 2

    def _share(self, lane: Lane) -> int:
        """Return how many tasks of one lane are read at a time: the prefetch is shared by the lanes that have work."""
        lanes = sum(len(queue.ring) for queue in self._scheduler.turns) or 1
        return max(8, min(lane.window.capacity, self._prefetch // lanes))

    # -- the loop -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Look whenever there is reason to."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            await self._look()
            self._arm()

    async def _look(self) -> None:
        if self._timers.wants_load(self._timers.capacity // 2):
            await self._load_timers()
        now_ms = self._clock.now_ms()
        while self._timers.heap and self._timers.heap[0][0][0] <= now_ms:
            await self._promote(now_ms)
            if self._timers.wants_load(0):
                await self._load_timers()
        while self._hungry:
            await self._load_lanes()
        self._scheduler.release_held(self._clock.now_ms())
        self._wake_runner()
        self._looked()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ms = self._clock.now_ms()
        instants = [each(now_ms) for each in self.other_instants]
        instants.append(self._scheduler.next_release_ms())
        if self._timers.heap:
            instants.append(self._timers.heap[0][0][0])
        known = [each for each in instants if each is not None]
        if known:
            delay_s = min(max(0.0, (min(known) - now_ms) / 1000), _SLEEP_MAX_S)
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._wake.set)

    async def _load_timers(self) -> None:
        timers, limit = self._timers, self._timers.capacity
        while True:
            after = timers.begin_load() or (-1, -1)
            found = await self._db.read(due_after, after, limit)
            last = found[-1] if found else None
            timers.end_load([(key, None) for key in found], last=last, more=len(found) == limit)
            if timers.heap or timers.complete:
                return  # else all that was due later came while this read: nobody would look again

    async def _promote(self, now_ms: int) -> None:
        """Move due tasks to `ready`. They may run before the move is committed; a crash finds them still due."""
        heap = self._timers.heap
        due: list[tuple[int, int]] = []
        while heap and heap[0][0][0] <= now_ms and len(due) < _DUE_AT_ONCE:
            due.append(heap[0][0])
            self._timers.pop()
        loaded = await self._db.read(load_delayed, due)
        gathering = self._committer.gathering
        for row in loaded.rows:
            lane = self._books.lanes_by_id[row.lane]
            task_id = id_of(row.rank)
            if task_id in self.doomed:
                continue
            task = self._task(row, lane, loaded, stored=False)
            lane.delayed -= 1
            gathering.lanes.add(lane)
            gathering.batch.delayed_gone.append((row.due_at_ms, task_id))
            gathering.batch.ready[task_id] = (lane.id, row.rank, *task.columns())
            if task.handler.spec is None:
                continue  # waits in `ready` from now on; counted when the commit offers its row
            self._owned[task_id] = task
            if self._end_unrunnable(task):
                continue
            del self._owned[task_id]
            self.offer(task)
        self._committer.want(Haste.SOON)

    async def _load_lanes(self) -> None:
        lanes = list(self._hungry)[:_LANES_AT_ONCE]
        wanted = []
        for lane in lanes:
            del self._hungry[lane]
        lanes = [lane for lane in lanes if not lane.window.complete and not lane.window.loading]
        for lane in lanes:
            after = lane.window.begin_load()
            wanted.append((int(lane.id), -1 if after is None else after, self._share(lane)))
        if not wanted:
            return
        found = await self._db.read(load_ready_of, wanted)
        for lane, loaded, (_, _, limit) in zip(lanes, found, wanted, strict=True):
            self._take_in(lane, loaded, limit)
        self._wake_runner()

    def _take_in(self, lane: Lane, loaded: Loaded, limit: int) -> None:
        held: list[tuple[int, Runnable]] = []
        again = lane.window.rewound  # what this load found will be read once more
        for row in loaded.rows:
            task_id = id_of(row.rank)
            if task_id in self._owned or task_id in self.doomed:
                continue
            task = self._task(row, lane, loaded, stored=True)
            if task.handler.spec is None:
                if task.rank > lane.waiting_counted_to and not again:
                    lane.waiting[task.handler.name] = lane.waiting.get(task.handler.name, 0) + task.items
                continue
            self._owned[task_id] = task
            if not self._end_unrunnable(task):
                held.append((task.rank, task))
        last = loaded.rows[-1].rank if loaded.rows else None
        if last is not None and not again:
            lane.waiting_counted_to = max(lane.waiting_counted_to, last)
        lane.window.end_load(held, last=last, more=len(loaded.rows) == limit)
        self._trim(lane)
        self._scheduler.activate(lane)
        self.feed(lane)

    def _task(self, row: TaskRow, lane: Lane, loaded: Loaded, *, stored: bool) -> Task:
        body = bytes(row.body)
        if zlib.crc32(body) != row.crc:
            body = b""  # damaged: no JSON is empty
        job = None if row.job is None else JobId(row.job)
        task = Task(
            lane, Rank(row.rank), self._books.handlers_by_id[row.handler], row.attempt, row.enqueued_at_ms, job,
            row.items, row.crc, body, row.extra or NO_EXTRA, stored=stored,
        )  # fmt: skip
        if job is not None:
            self._add_items(task, loaded.chunks.get(task.id))
        return task

    def _add_items(self, task: Task, chunk: ChunkRow | None) -> None:
        if chunk is None:
            task.body = b""
            return
        items, state = bytes(chunk.items), bytes(chunk.state)
        known = state != b"null"
        left = ItemsLeft.decode(chunk.size, state if known else None)
        task.items = max(1, left.count)
        if zlib.crc32(items) != chunk.crc:
            task.body = b""
            return
        task.chunk = Chunk(items, left, stored_progress=known)


def _note_how_far(lane: Lane) -> None:
    """Note that what the window passed is counted, before it goes back."""
    cursor = lane.window.cursor
    if cursor is not None and cursor > lane.waiting_counted_to:
        lane.waiting_counted_to = cursor


def _int(value: object) -> int:
    assert isinstance(value, int)
    return value
