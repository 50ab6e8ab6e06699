"""Deleting what is not needed any more, a bounded slice a call, so that no transaction is long."""

from __future__ import annotations

import sqlite3
from typing import Final

from shoestring.core.model import ID_MASK

_JOBS_KEPT_MAX: Final = 10_000


def purge_job(conn: sqlite3.Connection, job: int, lane: int, after_rank: int, limit: int) -> int | None:
    """Delete rows of a cancelled job's chunks among the next `limit` tasks of its lane that come after `after_rank`.

    Returns where to go on, or None at the end of the lane. Chunks that are delayed go when they come due.
    """
    last, count = conn.execute(
        "SELECT max(rank), count(*) FROM (SELECT rank FROM ready WHERE lane = ? AND rank > ? ORDER BY rank LIMIT ?)",
        (lane, after_rank, limit),
    ).fetchone()
    if not count:
        return None
    part = (lane, after_rank, last, job)
    where = "FROM ready WHERE lane = ? AND rank > ? AND rank <= ? AND job = ?"
    for table in ("chunks", "progress"):
        conn.execute(f"DELETE FROM {table} WHERE id IN (SELECT rank & {ID_MASK} {where})", part)
    conn.execute(f"DELETE {where}", part)
    return int(last) if count == limit else None


def prune_discarded(conn: sqlite3.Connection, *, before_ms: int, kept_max: int, limit: int) -> int:
    """Delete up to `limit` discarded tasks that are too old or too many, the oldest first; return how many."""
    kept: int = conn.execute("SELECT count(*) FROM discarded").fetchone()[0]
    over = max(0, min(limit, kept - kept_max))
    old = conn.execute(
        "DELETE FROM discarded WHERE id IN (SELECT id FROM discarded ORDER BY id LIMIT ?)", (over,)
    ).rowcount
    aged = conn.execute(
        "DELETE FROM discarded WHERE id IN (SELECT id FROM discarded WHERE discarded_at_ms < ? LIMIT ?)",
        (before_ms, limit),
    ).rowcount
    return old + aged


def prune_jobs(conn: sqlite3.Connection, *, before_ms: int, limit: int) -> int:
    """Delete up to `limit` jobs that ended long ago, or are more than can be of interest; return how many."""
    return conn.execute(
        """DELETE FROM jobs WHERE id IN (
            SELECT id FROM jobs WHERE finished_at_ms IS NOT NULL AND NOT purge
            AND (finished_at_ms < ? OR id <= (SELECT id FROM jobs ORDER BY id DESC LIMIT 1 OFFSET ?)) LIMIT ?)""",
        (before_ms, _JOBS_KEPT_MAX, limit),
    ).rowcount
