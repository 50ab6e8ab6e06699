"""Reading tasks in the order they are due to run. The hot path; writing is `batch.apply`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

import msgspec

from shoestring.core.errors import DatabaseDamaged
from shoestring.core.model import ID_MASK
from shoestring.store.rows import keys


class Extra(msgspec.Struct, frozen=True, omit_defaults=True):
    """What few tasks have."""

    expires_at_ms: int | None = None
    unique: str | None = None
    crashes: int = 0  # unclean deaths of the daemon while this task was running, without an item done in between
    left: int = 0  # items of a chunk that were not done at the last of them
    started: bool = False  # an at-most-once task that was started: it is not run again


class ChunkRow(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    id: int
    size: int
    crc: int
    items: msgspec.Raw
    state: msgspec.Raw


class TaskRow(msgspec.Struct, frozen=True, array_like=True, gc=False, forbid_unknown_fields=True):
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
SELECT count(*),
    CAST('[' || coalesce(group_concat('[' || lane || ',' || rank || ',' || due || ',' || handler || ',' || attempt
    || ',' || enqueued_at_ms || ',' || coalesce(job, 'null') || ',' || items || ',' || crc || ',' || body || ','
    || coalesce(extra, 'null') || ']'), '') || ']' AS BLOB)
"""
_READY: Final = "FROM (SELECT *, 0 AS due FROM ready WHERE lane = ? AND rank > ? ORDER BY rank LIMIT ?)"
_DELAYED: Final = """FROM (SELECT *, due_at_ms AS due FROM delayed
    WHERE (due_at_ms, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?)) ORDER BY due_at_ms, id)"""
_CHUNKS_AS_JSON: Final = """
SELECT count(*),
    CAST('[' || coalesce(group_concat('[' || chunks.id || ',' || size || ',' || crc || ',' || items || ','
    || coalesce(state, 'null') || ']'), '') || ']' AS BLOB)
"""
_CHUNK: Final = "FROM chunks LEFT JOIN progress USING (id) WHERE chunks.id IN (SELECT value FROM json_each(?))"
# The same one by one, for when that text cannot be had or read. As BLOB: damaged text need not be UTF-8.
_ONE_BY_ONE: Final = """
SELECT lane, rank, due, handler, attempt, enqueued_at_ms, job, items, crc, CAST(body AS BLOB), CAST(extra AS BLOB)
"""
_CHUNKS_ONE_BY_ONE: Final = "SELECT chunks.id, size, crc, CAST(items AS BLOB), CAST(state AS BLOB)"
#: What reading JSON that is none may raise; RecursionError is for ten thousand brackets.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
#: The checksum of a row that was found damaged: none that CRC-32 yields, so that it matches nothing.
_NO_CRC: Final = -1
_DUE: Final = """
SELECT CAST('[' || coalesce(group_concat('[' || due_at_ms || ',' || id || ']'), '') || ']' AS BLOB)
FROM (SELECT due_at_ms, id FROM delayed WHERE (due_at_ms, id) > (?, ?) ORDER BY due_at_ms, id LIMIT ?)
"""
_PAIRS: Final = msgspec.json.Decoder(list[tuple[int, int]])


def load_ready(conn: sqlite3.Connection, lane: int, after_rank: int, limit: int) -> Loaded:
    """Read up to `limit` tasks of a lane that come after `after_rank`, with the items of its chunks."""
    return _with_chunks(conn, _rows(conn, _READY, (lane, after_rank, limit)))


def load_ready_of(conn: sqlite3.Connection, wanted: Sequence[tuple[int, int, int]]) -> list[Loaded]:
    """Do `load_ready` for several lanes in one trip; `wanted` holds (lane, after_rank, limit)."""
    return [load_ready(conn, *each) for each in wanted]


def load_delayed(conn: sqlite3.Connection, due: Sequence[tuple[int, int]]) -> Loaded:
    """Read delayed tasks by their keys; those that are gone are left out."""
    return _with_chunks(conn, _rows(conn, _DELAYED, (keys(due),)))


def due_after(conn: sqlite3.Connection, after: tuple[int, int], limit: int) -> list[tuple[int, int]]:
    """Read the next `limit` keys (due, id) of delayed tasks."""
    return _PAIRS.decode(conn.execute(_DUE, (*after, limit)).fetchone()[0])


def _rows(conn: sqlite3.Connection, which: str, args: tuple[int | str, ...]) -> list[TaskRow]:
    """Read task rows; one that is damaged is returned with a checksum that matches nothing, the others as they are."""
    try:
        count, text = conn.execute(f"{_AS_JSON} {which}", args).fetchone()
        found = _ROWS.decode(text)
        if len(found) == count:  # a NULL where none may be drops a row from the text, damaged JSON may make two of one
            return found
    except (*_UNREADABLE, sqlite3.DataError):
        pass  # DataError: more than the billion bytes a text may have
    return [_salvaged(row) for row in conn.execute(f"{_ONE_BY_ONE} {which}", args)]


def _salvaged(row: tuple[object, ...]) -> TaskRow:
    *numbers, body, extra = row
    try:
        spelled = b"null" if extra is None else extra
        return msgspec.convert([*numbers, _json(body), msgspec.json.decode(_json(spelled), type=Extra | None)], TaskRow)
    except _UNREADABLE:
        pass
    numbers[-1] = _NO_CRC
    try:
        return msgspec.convert([*numbers, msgspec.Raw(b""), None], TaskRow)
    except msgspec.ValidationError as error:
        raise _unreadable("a task", row[:3], error) from error


def _with_chunks(conn: sqlite3.Connection, found: list[TaskRow]) -> Loaded:
    ids = [row.rank & ID_MASK for row in found if row.job is not None]
    if not ids:
        return Loaded(found, {})
    return Loaded(found, {chunk.id: chunk for chunk in _chunks(conn, keys(ids))})


def _chunks(conn: sqlite3.Connection, ids: str) -> list[ChunkRow]:
    """Read the items of chunks, as `_rows` reads tasks."""
    try:
        count, text = conn.execute(f"{_CHUNKS_AS_JSON} {_CHUNK}", (ids,)).fetchone()
        found = _CHUNKS.decode(text)
        if len(found) == count:
            return found
    except (*_UNREADABLE, sqlite3.DataError):
        pass
    return [_salvaged_chunk(row) for row in conn.execute(f"{_CHUNKS_ONE_BY_ONE} {_CHUNK}", (ids,))]


def _salvaged_chunk(row: tuple[object, ...]) -> ChunkRow:
    number, size, crc, items, state = row
    try:
        # Without its progress nobody knows which items are done, nor how many: the books could not be kept.
        progress = _json(b"null" if state is None else state)
        try:
            return msgspec.convert([number, size, crc, _json(items), progress], ChunkRow)
        except _UNREADABLE:
            return msgspec.convert([number, size, _NO_CRC, msgspec.Raw(b""), progress], ChunkRow)
    except _UNREADABLE as error:
        raise _unreadable("the progress of chunk", (number,), error) from error


def _json(text: object) -> msgspec.Raw:
    """Return JSON as it is; raise what msgspec raises for what is none."""
    if not isinstance(text, bytes):
        raise msgspec.DecodeError(f"{type(text).__name__} where there was a text")
    msgspec.json.decode(text)
    return msgspec.Raw(text)


def _unreadable(what: str, key: tuple[object, ...], error: Exception) -> DatabaseDamaged:
    return DatabaseDamaged(
        f"{what} {', '.join(map(str, key))} did not read back as it was written: {error}. The file was not touched; "
        "the daemon ends. Look at the disk's health (dmesg), keep a copy of the file, then restore a backup or salvage "
        "what reads with `sqlite3 FILE .recover`."
    )


def unique_holder(conn: sqlite3.Connection, key: str) -> int | None:
    """Return the id of the task that holds a unique key."""
    row = conn.execute("SELECT id FROM uniques WHERE key = ?", (key,)).fetchone()
    return None if row is None else row[0]
