"""The checks made after every commit: the file against itself, and memory against the file."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import msgspec

from shoestring.core.bucket import Bucket
from shoestring.core.fanout import ItemsLeft
from shoestring.core.model import ID_MASK, JobState
from shoestring.store.batch import apply
from shoestring.store.tasks import Extra
from tests.sim.world import World

_TASKS: Final = f"""
SELECT t.place, t.lane, t.rank & {ID_MASK}, t.rank, t.due, t.handler, t.job, t.extra,
    chunks.size, progress.state, jobs.state
FROM (SELECT 'ready' AS place, lane, rank, NULL AS due, handler, job, extra FROM ready
      UNION ALL SELECT 'delayed', lane, rank, due_at_ms, handler, job, extra FROM delayed) AS t
LEFT JOIN chunks ON chunks.id = t.rank & {ID_MASK} LEFT JOIN progress ON progress.id = t.rank & {ID_MASK}
LEFT JOIN jobs ON jobs.id = t.job
"""
_NO_EXTRA: Final = Extra()


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A row of `ready` or `delayed`, and what belongs to it."""

    place: str
    lane: int
    id: int
    rank: int
    due_at_ms: int | None
    handler: int
    job: int | None
    extra: Extra
    left: int  # items not ended; 0 for a chunk whose items are missing
    is_void: bool  # its job was cancelled: it is counted already, and goes when it is found


def read_tasks(conn: sqlite3.Connection) -> list[StoredTask]:
    found = []
    for place, lane, number, rank, due, handler, job, extra, size, state, job_state in conn.execute(_TASKS):
        left = 1
        if job is not None:
            left = 0 if size is None else ItemsLeft.decode(size, state).count
        spelled = _NO_EXTRA if extra is None else msgspec.json.decode(extra, type=Extra)
        is_void = job is not None and job_state not in ("open", "sealed")
        found.append(StoredTask(place, lane, number, rank, due, handler, job, spelled, left, is_void))
    return found


class Watch:
    """Looks at the file after every commit, before anything else can happen, and at memory when it was told of it."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._snapshots: dict[int, dict[tuple[str, str], Bucket]] = {}
        self._stored: list[StoredTask] = []

    def mark(self) -> int:
        world = self._world
        world.seq += 1
        self._snapshots[world.seq] = dict(world.buckets)
        return world.seq

    def committed(self, conn: sqlite3.Connection, mark: int, f: Callable[..., object]) -> None:
        world = self._world
        buckets = self._snapshots.pop(mark)
        if f is apply:
            world.committed_seq = mark
            world.committed_buckets = buckets
            self._snapshots = {each: kept for each, kept in self._snapshots.items() if each > mark}
        world.say("commit", getattr(f, "__name__", "sweep"))
        self._stored = check_file(world, conn)

    def settled(self) -> None:
        """Look at memory after the engine took note of a commit."""
        world = self._world
        if world.engine is not None and not world.dead:
            check_memory(world, self._stored)


def check_file(world: World, conn: sqlite3.Connection) -> list[StoredTask]:
    """Check that the file's books, jobs, chunks and unique keys agree with the tasks in it; return those."""
    stored = read_tasks(conn)
    _check_places(world, stored)
    _check_lanes(world, conn, stored)
    _check_jobs(world, conn, stored)
    _check_uniques(world, conn, stored)
    return stored


def _check_places(world: World, stored: list[StoredTask]) -> None:
    twice = [number for number, count in Counter(each.id for each in stored).items() if count > 1]
    if twice:
        world.fail("one_place", f"tasks {twice}")


def _check_lanes(world: World, conn: sqlite3.Connection, stored: list[StoredTask]) -> None:
    pending: Counter[int] = Counter()
    delayed: Counter[int] = Counter()
    for each in stored:
        if not each.is_void:
            pending[each.lane] += each.left
        delayed[each.lane] += each.place == "delayed"
    rows = conn.execute(
        "SELECT id, accepted - completed - discarded - cancelled - expired - dropped, delayed FROM lanes"
    ).fetchall()
    for lane, booked, booked_delayed in rows:
        if booked != pending[lane]:
            world.fail("ledger_balances", f"lane {lane}: {booked} pending in the books, {pending[lane]} in the rows")
        if booked_delayed != delayed[lane]:
            world.fail("delayed_counted", f"lane {lane}: {booked_delayed} in the books, {delayed[lane]} rows")
    known = {lane for lane, _, _ in rows}
    if unknown := {each.lane for each in stored} - known:
        world.fail("ledger_balances", f"lanes {unknown} have tasks and no books")


def _check_jobs(world: World, conn: sqlite3.Connection, stored: list[StoredTask]) -> None:
    left: Counter[int] = Counter()
    for each in stored:
        if each.job is not None:
            left[each.job] += each.left
    for job, pending in conn.execute(
        "SELECT id, accepted - done - failed - cancelled FROM jobs WHERE state IN ('open', 'sealed')"
    ):
        if pending != left[job]:
            world.fail("jobs_balance", f"job {job}: {pending} pending in its books, {left[job]} in its chunks")
    chunks = {row[0] for row in conn.execute("SELECT id FROM chunks")}
    for number in chunks - world.chunks.keys():
        (items,) = conn.execute("SELECT items FROM chunks WHERE id = ?", (number,)).fetchone()
        world.chunks[number] = msgspec.json.decode(items, type=list[int])
    progress = {row[0] for row in conn.execute("SELECT id FROM progress")}
    tasks = {each.id for each in stored if each.job is not None}
    if chunks != tasks:
        world.fail("no_orphans", f"items without task: {chunks - tasks}, tasks without items: {tasks - chunks}")
    if not progress <= chunks:
        world.fail("no_orphans", f"progress without items: {progress - chunks}")


def _check_uniques(world: World, conn: sqlite3.Connection, stored: list[StoredTask]) -> None:
    given = set(conn.execute("SELECT key, id FROM uniques"))
    live = {(each.extra.unique, each.id) for each in stored if each.extra.unique is not None}
    if given != live:
        world.fail("unique_held", f"keys without task: {given - live}, tasks without key: {live - given}")


def check_memory(world: World, stored: list[StoredTask]) -> None:
    """Check what the windows promise: what they passed is in memory. Called when a commit was just taken in."""
    engine = world.engine
    assert engine is not None
    books, dispatcher = engine.books, engine.dispatcher
    for each in stored:
        if each.place == "delayed" or each.id in engine.owned or each.id in dispatcher.doomed:
            continue
        if each.job is not None and ((job := books.jobs.get(each.job)) is None or job.state is JobState.CANCELLED):
            continue  # cancelled since that commit: nobody needs it any more
        lane = books.lanes_by_id.get(each.lane)
        if lane is None:
            world.fail("window_holds", f"task {each.id} is in lane {each.lane}, which is not in memory")
            continue
        window = lane.window
        passed = window.cursor is not None and each.rank <= window.cursor
        if (passed or window.complete) and not each.is_void and books.handlers_by_id[each.handler].spec is not None:
            world.fail("window_holds", f"task {each.id} of lane {lane.id} was passed and is nowhere in memory")
    for lane in books.lanes.values():
        if lane.ledger.pending < 0 or lane.delayed < 0 or lane.running < 0:
            counts = f"{lane.ledger.pending} pending, {lane.delayed} delayed, {lane.running} run"
            world.fail("lead", f"lane {lane.id}: {counts}")
