"""What the daemon needs to know at its start, and the marks it leaves: its generation, and who ran at a crash."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from shoestring.core.fanout import ItemsLeft
from shoestring.core.model import id_of
from shoestring.store.rows import Value, keys
from shoestring.store.tasks import Extra

#: Ids are handed out from memory; the file holds the first that was never reserved. Raised in steps, so that the
#: write is rare, and before use, so that no id is ever given twice, whatever was lost with a crash.
ID_STEP = 1 << 16


class LaneRow(msgspec.Struct, frozen=True, array_like=True):
    id: int
    queue: str
    user: str
    accepted: int
    completed: int
    discarded: int
    cancelled: int
    expired: int
    dropped: int
    delayed: int


class JobRow(msgspec.Struct, frozen=True, array_like=True):
    id: int
    lane: int
    state: str
    spec: str
    cursor: str | None
    seq: int
    next_pull_at_ms: int
    pulls_failed: int
    accepted: int
    done: int
    failed: int
    cancelled: int
    created_at_ms: int
    finished_at_ms: int | None
    error: str | None
    purge: int


class BucketRow(msgspec.Struct, frozen=True, array_like=True):
    queue: str
    user: str
    tokens: float
    capacity: float
    rate: float
    updated_at_ms: int


class Opening(msgspec.Struct):
    """The state of the file as a new generation finds it."""

    generation: int
    next_id: int
    next_lane: int
    handlers: dict[int, str]
    lanes: list[LaneRow]
    rest: list[LaneRow]  # per queue, the books of all other lanes added up
    buckets: list[BucketRow]  # of these lanes
    parks: list[tuple[str, str, int, str]]
    jobs: list[JobRow]
    discarded_kept: int
    crashed: int  # tasks that ran when the last generation died


_BUSY = """accepted > completed + discarded + cancelled + expired + dropped OR delayed > 0
    OR id IN (SELECT lane FROM jobs WHERE state IN ('open', 'sealed') OR purge)"""


def begin_generation(conn: sqlite3.Connection, died: int = 0, suspects: Sequence[tuple[int, int]] = ()) -> Opening:
    """Count a new generation and read what it starts from. Lanes are those with work left
    or an open job.

    Work is not touched: what ran when the last generation ended is still where it was claimed from. `suspects` ran
    when generation `died` ended. Their crashes are counted in the same transaction, and only if that generation was
    the last: a start that is killed before it has a register of its own leaves the old one to be read once more.
    """
    last: int = conn.execute("SELECT value FROM meta WHERE key = 'generation'").fetchone()[0]
    crashed = _count_crash(conn, suspects) if died == last else 0
    conn.execute("UPDATE meta SET value = value + 1 WHERE key = 'generation'")
    conn.execute("UPDATE meta SET value = value + ? WHERE key = 'next_id'", (ID_STEP,))
    meta: dict[str, int] = dict(conn.execute("SELECT key, value FROM meta").fetchall())
    lanes = conn.execute(f"SELECT * FROM lanes WHERE {_BUSY}").fetchall()
    rest = conn.execute(
        "SELECT 0, queue, '', sum(accepted), sum(completed), sum(discarded), sum(cancelled), sum(expired), "
        f"sum(dropped), 0 FROM lanes WHERE NOT ({_BUSY}) GROUP BY queue"
    ).fetchall()
    buckets = conn.execute(
        f"SELECT * FROM buckets WHERE (queue, user) IN (SELECT queue, user FROM lanes WHERE {_BUSY})"
    ).fetchall()
    jobs = conn.execute("SELECT * FROM jobs WHERE state IN ('open', 'sealed') OR purge").fetchall()
    return Opening(
        generation=meta["generation"],
        next_id=meta["next_id"] - ID_STEP,
        next_lane=conn.execute("SELECT coalesce(max(id), 0) + 1 FROM lanes").fetchone()[0],
        handlers=dict(conn.execute("SELECT id, name FROM handlers").fetchall()),
        lanes=[LaneRow(*row) for row in lanes],
        rest=[LaneRow(*row) for row in rest],
        buckets=[BucketRow(*row) for row in buckets],
        parks=conn.execute("SELECT scope, name, until_ms, reason FROM parks").fetchall(),
        jobs=[JobRow(*row) for row in jobs],
        discarded_kept=conn.execute("SELECT count(*) FROM discarded").fetchone()[0],
        crashed=crashed,
    )


def find_lanes(conn: sqlite3.Connection, wanted: Sequence[tuple[str, str]]) -> tuple[list[LaneRow], list[BucketRow]]:
    """Read the books and the buckets of the lanes (queue, user) that have some."""
    where = "WHERE (queue, user) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))"
    lanes = conn.execute(f"SELECT * FROM lanes {where}", (keys(wanted),)).fetchall()
    buckets = conn.execute(f"SELECT * FROM buckets {where}", (keys(wanted),)).fetchall()
    return [LaneRow(*row) for row in lanes], [BucketRow(*row) for row in buckets]


def _count_crash(conn: sqlite3.Connection, suspects: Sequence[tuple[int, int]]) -> int:
    """Raise the crash count of the tasks that were running at an unclean death; return how many were still there.

    `suspects` are keys (lane, rank) from the register; a task stands there twice if an abandoned call of it went on
    while it was tried again, and has died once all the same. A task whose outcome was committed is gone and stays so.
    A chunk that got items done since its last crash begins to count anew: one with a deadly item dies at that item
    every time.
    """
    counted = 0
    elsewhere: list[tuple[int, int]] = []
    for lane, rank in dict.fromkeys(suspects):
        row: tuple[Value] | None = conn.execute(
            "SELECT extra FROM ready WHERE lane = ? AND rank = ?", (lane, rank)
        ).fetchone()
        if row is None:
            elsewhere.append((lane, rank))
            continue
        extra = _once_more(conn, rank, row[0])
        conn.execute("UPDATE ready SET extra = ? WHERE lane = ? AND rank = ?", (extra, lane, rank))
        counted += 1
    moved = conn.execute(_MOVED, (_MOVED_MAX, keys(elsewhere))).fetchall() if elsewhere else []
    for due_at_ms, number, rank, spelled in moved:
        extra = _once_more(conn, rank, spelled)
        conn.execute("UPDATE delayed SET extra = ? WHERE due_at_ms = ? AND id = ?", (extra, due_at_ms, number))
    return counted + len(moved)


#: A delayed task that came due runs before its move to `ready` is committed. Its row is among the first then, and
#: looked for only there: all of 10 million would take a second.
_MOVED: Final = """
SELECT due_at_ms, id, rank, extra FROM (SELECT * FROM delayed ORDER BY due_at_ms, id LIMIT ?)
WHERE (lane, rank) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))
"""
_MOVED_MAX: Final = 100_000


def _once_more(conn: sqlite3.Connection, rank: int, spelled: Value) -> str:
    extra = Extra() if spelled is None else msgspec.json.decode(str(spelled), type=Extra)
    left = _items_left(conn, rank)
    crashes = 1 if left < extra.left else extra.crashes + 1
    return msgspec.json.encode(msgspec.structs.replace(extra, crashes=crashes, left=left)).decode()


def _items_left(conn: sqlite3.Connection, rank: int) -> int:
    """Return how many items of a chunk are not done; 0 for a plain task."""
    row = conn.execute(
        "SELECT size, state FROM chunks LEFT JOIN progress USING (id) WHERE id = ?", (id_of(rank),)
    ).fetchone()
    return 0 if row is None else ItemsLeft.decode(*row).count


def mark_started(conn: sqlite3.Connection, lane: int, rank: int, extra: Extra) -> None:
    """Note that an at-most-once task is about to run; if it is ever found again it is not run."""
    conn.execute(
        "UPDATE ready SET extra = ? WHERE lane = ? AND rank = ?", (msgspec.json.encode(extra).decode(), lane, rank)
    )
