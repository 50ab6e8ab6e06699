"""Reads for people: lists and single records, on a snapshot beside the writer."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from shoestring.core.fanout import ItemsLeft
from shoestring.core.model import ID_MASK, JobSpec, JobState, Progress, TaskState, TaskView, id_of, priority_of
from shoestring.store.tasks import Extra

_BODY_CHARS: Final = 1_000

_TASK: Final = """
    handlers.name AS handler, lanes.queue, lanes.user, t.rank, t.attempt, t.enqueued_at_ms, t.job, t.items,
    substr(t.body, 1, 1000) AS body
"""
_READY: Final = f"""
    SELECT 0 AS due_at_ms, {_TASK} FROM ready AS t
    JOIN lanes ON lanes.id = t.lane JOIN handlers ON handlers.id = t.handler
"""
_DELAYED: Final = f"""
    SELECT t.due_at_ms, {_TASK} FROM delayed AS t
    JOIN lanes ON lanes.id = t.lane JOIN handlers ON handlers.id = t.handler
"""
_DISCARDED: Final = """
    SELECT t.*, handlers.name AS name, lanes.queue, lanes.user FROM discarded AS t
    JOIN lanes ON lanes.id = t.lane JOIN handlers ON handlers.id = t.handler
"""


def _rows(conn: sqlite3.Connection, sql: str, args: Sequence[object]) -> list[dict[str, Any]]:
    cursor = conn.execute(sql, tuple(args))
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def _where(**wanted: object) -> tuple[str, list[object]]:
    """Return the WHERE clause for the filters that are set, and its values."""
    columns = {"queue": "lanes.queue", "user": "lanes.user", "handler": "handlers.name"}
    given = {columns[name]: value for name, value in wanted.items() if value is not None}
    clause = " AND ".join(f"{column} = ?" for column in given)
    return (f" WHERE {clause}" if clause else ""), list(given.values())


def list_tasks(
    conn: sqlite3.Connection,
    queue: str | None,
    user: str | None,
    handler: str | None,
    state: TaskState | None,
    limit: int,
) -> list[TaskView]:
    """Return stored tasks, those that may run first. Running ones look ready here: a claim is not written."""
    where, values = _where(queue=queue, user=user, handler=handler)
    found: list[TaskView] = []
    if state is not TaskState.DELAYED:
        rows = _rows(conn, f"{_READY}{where} ORDER BY t.lane, t.rank LIMIT ?", [*values, limit])
        found += [_task_view(row, TaskState.READY) for row in rows]
    if state in (None, TaskState.DELAYED) and len(found) < limit:
        rows = _rows(conn, f"{_DELAYED}{where} ORDER BY t.due_at_ms, t.id LIMIT ?", [*values, limit - len(found)])
        found += [_task_view(row, TaskState.DELAYED) for row in rows]
    return found


def find_task(conn: sqlite3.Connection, task_id: int) -> TaskView | None:
    """Return a stored task by its id. There is no index on it: a scan, which at 10 million tasks takes a second."""
    if not _is_id(task_id):
        return None
    for sql, where, state in (
        (_READY, f"WHERE t.rank & {ID_MASK} = ?", TaskState.READY),
        (_DELAYED, "WHERE t.id = ?", TaskState.DELAYED),
    ):
        if rows := _rows(conn, f"{sql} {where} LIMIT 1", [task_id]):
            return _task_view(rows[0], state)
    if rows := _rows(conn, f"{_DISCARDED} WHERE t.id = ?", [task_id]):
        return _discarded_view(rows[0])
    return None


def _is_id(number: int) -> bool:
    """Tell whether a number somebody typed can be an id at all; SQLite takes none of more than 64 bits."""
    return 0 < number <= ID_MASK


class StoredTask(msgspec.Struct, frozen=True):
    """Where a task stands on disk, and what has to go with it."""

    lane: int
    rank: int
    due_at_ms: int | None
    job: int | None
    left: int
    unique: str | None


def find_stored(conn: sqlite3.Connection, task_id: int) -> StoredTask | None:
    """Return where a task is stored, whichever table it is in."""
    if not _is_id(task_id):
        return None
    for sql in (
        f"SELECT lane, rank, NULL, job, items, extra FROM ready WHERE rank & {ID_MASK} = ?",
        "SELECT lane, rank, due_at_ms, job, items, extra FROM delayed WHERE id = ?",
    ):
        row = conn.execute(sql, (task_id,)).fetchone()
        if row is not None:
            lane, rank, due_at_ms, job, items, spelled = row
            extra = Extra() if spelled is None else msgspec.json.decode(spelled, type=Extra)
            return StoredTask(lane, rank, due_at_ms, job, _left(conn, task_id, items), extra.unique)
    return None


def _left(conn: sqlite3.Connection, task_id: int, items: int) -> int:
    row = conn.execute(
        "SELECT size, state FROM chunks LEFT JOIN progress USING (id) WHERE id = ?", (task_id,)
    ).fetchone()
    return items if row is None else ItemsLeft.decode(*row).count


def _task_view(row: dict[str, Any], state: TaskState) -> TaskView:
    return TaskView(
        task_id=id_of(row["rank"]), state=state, handler=row["handler"], queue=row["queue"], user=row["user"],
        priority=priority_of(row["rank"]), attempt=row["attempt"], enqueued_at_ms=row["enqueued_at_ms"],
        due_at_ms=row["due_at_ms"] or None, job_id=row["job"], items=row["items"], body=row["body"],
    )  # fmt: skip


def list_discarded(conn: sqlite3.Connection, queue: str | None, handler: str | None, limit: int) -> list[TaskView]:
    """Return what was given up, the latest first."""
    where, values = _where(queue=queue, handler=handler)
    return [
        _discarded_view(row) for row in _rows(conn, f"{_DISCARDED}{where} ORDER BY t.id DESC LIMIT ?", [*values, limit])
    ]


def _discarded_view(row: dict[str, Any]) -> TaskView:
    body = row["body"] if row["item"] is None else f"{row['item']} of {row['body']}"
    return TaskView(
        task_id=row["id"], state=TaskState.DISCARDED, handler=row["name"], queue=row["queue"], user=row["user"],
        priority=priority_of(row["rank"]), attempt=row["attempt"], enqueued_at_ms=row["enqueued_at_ms"],
        discarded_at_ms=row["discarded_at_ms"], job_id=row["job"], body=body[:_BODY_CHARS], error=row["error"],
        traceback=row["traceback"],
    )  # fmt: skip


class DiscardedRow(msgspec.Struct, frozen=True):
    """What a replay needs."""

    id: int
    handler: str
    queue: str
    user: str
    rank: int
    body: str
    item: str | None


def discarded_to_replay(
    conn: sqlite3.Connection, ids: Sequence[int] | None, queue: str | None, handler: str | None, after: int, limit: int
) -> list[DiscardedRow]:
    """Return discarded tasks after id `after`, by id or by filters."""
    where, values = _where(queue=queue, handler=handler)
    clause = f"{where} {'AND' if where else 'WHERE'} t.id > ?"
    if ids is not None:
        clause += " AND t.id IN (SELECT value FROM json_each(?))"
    args = [*values, after, *([msgspec.json.encode(list(ids)).decode()] if ids is not None else [])]
    rows = _rows(conn, f"{_DISCARDED}{clause} ORDER BY t.id LIMIT ?", [*args, limit])
    return [
        DiscardedRow(row["id"], row["name"], row["queue"], row["user"], row["rank"], row["body"], row["item"])
        for row in rows
    ]


_JOB: Final = "SELECT jobs.*, lanes.queue, lanes.user FROM jobs JOIN lanes ON lanes.id = jobs.lane"


def job_progress(conn: sqlite3.Connection, job_id: int) -> Progress | None:
    if not _is_id(job_id):
        return None
    rows = _rows(conn, f"{_JOB} WHERE jobs.id = ?", [job_id])
    return _progress(rows[0]) if rows else None


def list_jobs(conn: sqlite3.Connection, state: JobState | None, limit: int) -> list[Progress]:
    """Return jobs, the latest first."""
    where, values = ("", []) if state is None else (" WHERE jobs.state = ?", [state.value])
    return [_progress(row) for row in _rows(conn, f"{_JOB}{where} ORDER BY jobs.id DESC LIMIT ?", [*values, limit])]


def _progress(row: dict[str, Any]) -> Progress:
    state = JobState(row["state"])
    return Progress(
        job_id=row["id"], state=state, handler=msgspec.json.decode(row["spec"], type=JobSpec).handler,
        queue=row["queue"], user=row["user"], total=None if state is JobState.OPEN else row["accepted"],
        accepted=row["accepted"],
        done=row["done"], failed=row["failed"], cancelled=row["cancelled"],
        pending=row["accepted"] - row["done"] - row["failed"] - row["cancelled"], created_at_ms=row["created_at_ms"],
        finished_at_ms=row["finished_at_ms"], error=row["error"],
    )  # fmt: skip
