"""A real database file, and rows as the engine writes them."""

from __future__ import annotations

import os
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from shoestring.core.model import rank_of
from shoestring.store.batch import Batch, apply
from shoestring.store.db import transact
from shoestring.store.rows import Row
from shoestring.store.schema import open_database

NOW_MS = 1_800_000_000_000


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a database may be made; in memory if it can, for a hundred tests that each make one."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK):
        yield tmp_path / "q.db"
        return
    with TemporaryDirectory(dir=shared, prefix="shoestring-test-") as folder:
        yield Path(folder) / "q.db"


@pytest.fixture
def conn(path: Path) -> Iterator[sqlite3.Connection]:
    """The one connection that writes, as the daemon opens it."""
    with closing(open_database(path)) as opened:
        yield opened


def commit(conn: sqlite3.Connection, batch: Batch) -> None:
    transact(conn, apply, (batch,))


def columns(
    *, body: str = "{}", handler: int = 1, job: int | None = None, items: int = 1, extra: str | None = None
) -> Row:
    """What `ready` and `delayed` share."""
    return (handler, 0, NOW_MS, job, items, zlib.crc32(body.encode()), body, extra)


def ready(task_id: int, *, lane: int = 1, priority: int = 0, **more: object) -> Row:
    return (lane, rank_of(priority, task_id), *columns(**more))  # type: ignore[arg-type]


def delayed(task_id: int, due_at_ms: int, *, lane: int = 1, priority: int = 0, **more: object) -> Row:
    return (due_at_ms, task_id, lane, rank_of(priority, task_id), *columns(**more))  # type: ignore[arg-type]


def chunk(task_id: int, items: str = "[1,2,3]", size: int = 3) -> Row:
    return (task_id, size, zlib.crc32(items.encode()), items)


def lane(number: int = 1, *, accepted: int = 0, completed: int = 0, delayed: int = 0) -> Row:
    return (number, "q", f"u{number}", accepted, completed, 0, 0, 0, 0, delayed)


def job(number: int, *, state: str = "open", accepted: int = 0, purge: int = 0, lane: int = 1) -> Row:
    finished_at_ms = None if state in ("open", "sealed") else NOW_MS
    return (
        number, lane, state, '{"handler":"h","body":{}}', None, 0, 0, 0, accepted, 0, 0, 0, NOW_MS, finished_at_ms,
        None, purge,
    )  # fmt: skip
