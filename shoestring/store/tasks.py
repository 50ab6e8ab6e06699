"""Reading tasks in the order they are due to run. The hot path; writing is `batch.apply`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from shoestring.core.model import ID_MASK
from shoestring.store.rows import keys


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few tasks have."""

    expires_at_ms: int | None = None
    unique: str | None = None
    crashes: int = 0  # unclean deaths of the daemon while this task was running, without an item done in between
    left: int = 0  # items of a chunk that were not done at the last of them
    started: bool = False  # an at-most-once task that was started: it is not run again


class ChunkRow(msgspec.Struct, frozen=True, array_like=True):
    id: int
    size: int
    crc: int
    items: msgspec.Raw
    state: msgspec.Raw


class TaskRow(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A stored task. `key` is (lane, rank) in `ready` and (due, id) in `delayed`."""

    lane: int
    rank: int
    due_at_ms: int
    handler: int
    attempt: int
    enqueued_at_ms: int
    job: int | None
    items: int
    crc: int
    body: msgspec.Raw
    extra: Extra | None


class Loaded(msgspec.Struct):
    rows: list[TaskRow]
    chunks: dict[int, ChunkRow]


_ROWS: Final = msgspec.json.Decoder(list[TaskRow])
_CHUNKS: Final = msgspec.json.Decoder(list[ChunkRow])

# SQLite puts the rows together as one JSON text: one step, one hand-over (see `rows`). NULL spells null.
_AS_JSON: Final = """
SELECT CAST('[' || coalesce(group_concat('[' || lane || ',' || rank || ',' || due || ',' || handler || ',' || attempt
    || ',' || enqueued_at_ms || ',' || coalesce(job, 'null') || ',' || items || ',' || crc || ',' || body || ','
    || coalesce(extra, 'null') || ']'), '') || ']' AS BLOB)
"""
_READY: Final = f"{_AS_JSON} FROM (SELECT *, 0 AS due FROM ready WHERE lane = ? AND rank > ? ORDER BY rank LIMIT ?)"
_DELAYED: Final = f"""{_AS_JSON} FROM (SELECT *, due_at_ms AS due FROM delayed
    WHERE (due_at_ms, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?)) ORDER BY due_at_ms, id)"""
_CHUNK: Final = """
SELECT CAST('[' || coalesce(group_concat('[' || chunks.id || ',' || size || ',' || crc || ',' || items || ','
    || coalesce(state, 'null') || ']'), '') || ']' AS BLOB)
FROM chunks LEFT JOIN progress USING (id) WHERE chunks.id IN (SELECT value FROM json_each(?))
"""
_DUE: Final = """
SELECT CAST('[' || coalesce(group_concat('[' || due_at_ms || ',' || id || ']'), '') || ']' AS BLOB)
FROM (SELECT due_at_ms, id FROM delayed WHERE (due_at_ms, id) > (?, ?) ORDER BY due_at_ms, id LIMIT ?)
"""
_PAIRS: Final = msgspec.json.Decoder(list[tuple[int, int]])


def load_ready(conn: sqlite3.Connection, lane: int, after_rank: int, limit: int) -> Loaded:
    """Read up to `limit` tasks of a lane that come after `after_rank`, with the items of its chunks."""
    return _with_chunks(conn, _ROWS.decode(conn.execute(_READY, (lane, after_rank, limit)).fetchone()[0]))


def load_ready_of(conn: sqlite3.Connection, wanted: Sequence[tuple[int, int, int]]) -> list[Loaded]:
    """Do `load_ready` for several lanes in one trip; `wanted` holds (lane, after_rank, limit)."""
    return [load_ready(conn, *each) for each in wanted]


def load_delayed(conn: sqlite3.Connection, due: Sequence[tuple[int, int]]) -> Loaded:
    """Read delayed tasks by their keys; those that are gone are left out."""
    return _with_chunks(conn, _ROWS.decode(conn.execute(_DELAYED, (keys(due),)).fetchone()[0]))


def due_after(conn: sqlite3.Connection, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """Read the next `limit` keys (due, id) of delayed tasks."""
    return _PAIRS.decode(conn.execute(_DUE, (*after, limit)).fetchone()[0])


def _with_chunks(conn: sqlite3.Connection, found: list[TaskRow]) -> Loaded:
    ids = [row.rank & ID_MASK for row in found if row.job is not None]
    if not ids:
        return Loaded(found, {})
    chunks = _CHUNKS.decode(conn.execute(_CHUNK, (keys(ids),)).fetchone()[0])
    return Loaded(found, {chunk.id: chunk for chunk in chunks})


def unique_holder(conn: sqlite3.Connection, key: str) -> int | None:
    """Return the id of the task that holds a unique key."""
    row = conn.execute("SELECT id FROM uniques WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]
