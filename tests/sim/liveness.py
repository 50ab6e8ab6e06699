"""The checks made at every tick: whatever can run is running, soon."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Hashable
from typing import Final

from shoestring.core.lanes import Lane
from shoestring.core.model import Charge, JobState
from shoestring.engine.engine import Engine
from tests.sim.ledger import StoredTask, read_tasks
from tests.sim.world import World

_TICK_S: Final = 0.25
_PATIENCE_S: Final = 2.0
#: A durable answer waits for the slowest of syncs, and for the one before it.
_PATIENCE_FOR_ANSWERS_S: Final = 8.0
#: After the clock was set the queue's now runs up to half as fast again; a sleep of 30 s is that much too long.
_PATIENCE_AFTER_STEP_S: Final = 17.0


class Liveness:
    """Remembers since when something could go on and did not."""

    def __init__(self, world: World, conn: sqlite3.Connection) -> None:
        self._world = world
        self._conn = conn
        self._since: dict[Hashable, float] = {}

    async def run(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            self._tick()

    def _tick(self) -> None:
        world = self._world
        engine = world.engine
        assert engine is not None and world.loop is not None
        if engine.runner.quiet or engine.committer.disk_is_full:
            self._since.clear()
            return
        if not any(lane.ledger.pending for lane in engine.books.lanes.values()) and not engine.books.jobs:
            self._since.clear()
            return
        now_s = world.loop.time()
        waiting = self._waiting(engine, world.now_ms())
        self._since = {key: self._since.get(key, now_s) for key in waiting}
        patience_s = _PATIENCE_AFTER_STEP_S if world.clock is not None and world.clock.was_set else _PATIENCE_S
        for key, since_s in self._since.items():
            assert isinstance(key, tuple)
            if now_s - since_s > (_PATIENCE_FOR_ANSWERS_S if key[0] == "answered" else patience_s):
                world.fail(str(key[0]), f"{key[1:]} for {now_s - since_s:.2f} s")

    def _waiting(self, engine: Engine, now_ms: int) -> list[Hashable]:
        """Return what could go on just now, each with what would have changed if it had."""
        stored = read_tasks(self._conn)
        found: list[Hashable] = [("answered", *asked) for asked in self._world.asking.values()]
        found += [
            ("overdue", each.id, each.due_at_ms)
            for each in stored
            if each.due_at_ms is not None and each.due_at_ms <= now_ms
        ]
        running = [
            slot.runs
            for slot in engine.runner.slots.values()
            if slot.runs is not None and slot.rest is None and slot.work is not None and not slot.work.done()
        ]
        if len(running) < engine._config.run.slots and not self._somebody_is_alone(engine):
            ids = {int(task.id) for task in running}
            for lane_id, first in self._heads(engine, stored, ids).items():
                lane = engine.books.lanes_by_id[lane_id]
                handler = engine.books.handlers_by_id[first.handler]
                of_queue = sum(task.lane.queue is lane.queue for task in running)
                of_handler = sum(task.handler is handler for task in running)
                queue_max = lane.queue.config.concurrency
                handler_max = handler.spec.concurrency if handler.spec is not None else 0
                queue_has_room = queue_max is None or of_queue < queue_max
                has_room = queue_has_room and (handler_max is None or of_handler < handler_max)
                if has_room and not self._is_held(lane, now_ms):
                    found.append(("liveness", lane.queue.name, lane.user, first.id, len(self._world.lives)))
        return found + self._pulls(engine, now_ms)

    def _somebody_is_alone(self, engine: Engine) -> bool:
        return any(
            slot.runs is not None and slot.rest is None and slot.runs.extra.crashes > 1
            for slot in engine.runner.slots.values()
        )

    def _heads(self, engine: Engine, stored: list[StoredTask], running: set[int]) -> dict[int, StoredTask]:
        """Return the first task of each lane that could run, as the file has it."""
        heads: dict[int, StoredTask] = {}
        for each in stored:
            if each.place == "delayed" or each.is_void or each.id in running:
                continue
            if engine.books.handlers_by_id[each.handler].spec is None:
                continue
            if each.lane not in heads or each.rank < heads[each.lane].rank:
                heads[each.lane] = each
        return heads

    def _is_held(self, lane: Lane, now_ms: int) -> bool:
        world = self._world
        name = lane.queue.name, lane.user
        if world.parked_until_ms(*name) > now_ms:
            return True
        limit = lane.queue.config.limit
        if limit is None or limit.charge is not Charge.RUN or name not in world.buckets:
            return False
        return world.buckets[name].ready_at_ms(1, now_ms) > now_ms

    def _pulls(self, engine: Engine, now_ms: int) -> list[Hashable]:
        return [
            ("pull_liveness", job.id, job.seq, job.pulls_failed)
            for job in engine.books.jobs.values()
            if job.spec.source is not None
            and job.state is JobState.OPEN
            and not job.pulling
            and job.next_pull_at_ms <= now_ms
            and job.lane.ledger.pending < job.lane.queue.config.low_water
            and not self._is_held(job.lane, now_ms)
        ]
