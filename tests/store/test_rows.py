"""Rows go in by the hundred in one statement: all of them, in every number, and nothing else is deleted."""

from __future__ import annotations

import sqlite3

import pytest

from shoestring.store import rows
from shoestring.store.batch import Batch
from tests.store.conftest import commit, delayed, ready


def key_of(row: rows.Row) -> tuple[int, int]:
    lane, rank = row[:2]
    assert isinstance(lane, int)
    assert isinstance(rank, int)
    return lane, rank


SIZES = sorted({0, 1, 2, 3, 5, 15, 16, 17, 63, 64, 65, 255, 256, 257, 1_023, 1_024, 1_025, 2_048, 2_300, 5_461})


@pytest.mark.parametrize("count", SIZES)
def test_every_number_of_rows_goes_in_once(conn: sqlite3.Connection, count: int) -> None:
    """The statement sizes must add up to every number there is."""
    wanted = [(n, str(n)) for n in range(count)]

    rows.insert(conn, "INSERT INTO progress VALUES", wanted)

    assert wanted == conn.execute("SELECT * FROM progress ORDER BY id").fetchall()


@pytest.mark.parametrize("count", [1, 1_024, 1_025])
def test_the_widest_rows_fit_into_the_largest_statement(conn: sqlite3.Connection, count: int) -> None:
    """SQLite allows 32,766 values in a statement; a job has 16 columns."""
    wide: list[rows.Row] = [(n, *(f"{n}.{column}" for column in range(15))) for n in range(count)]
    conn.execute(f"CREATE TABLE wide ({', '.join(f'c{n}' for n in range(16))})")

    rows.insert(conn, "INSERT INTO wide VALUES", wide)

    assert wide == conn.execute("SELECT * FROM wide ORDER BY c0").fetchall()


def test_a_burst_takes_few_statements(conn: sqlite3.Connection) -> None:
    """Each of them may wait a whole switch interval of the interpreter for its turn."""
    said: list[str] = []
    conn.set_trace_callback(said.append)

    rows.insert(conn, "INSERT INTO progress VALUES", [(n, "") for n in range(1_365)])

    assert len(said) < 20


@pytest.mark.parametrize("lanes", [1, 4, 5, 40])
def test_just_the_tasks_that_ended_are_deleted(conn: sqlite3.Connection, lanes: int) -> None:
    """One way for few lanes, another for many: both by the whole key, and of no lane but its own."""
    stored = [ready(10 * n + lane, lane=lane) for lane in range(1, lanes + 1) for n in range(1, 6)]
    same_rank = [ready(11, lane=90), ready(12, lane=91)]
    commit(conn, Batch(accepted_ready=[*stored, *same_rank]))
    gone = [key_of(row) for row in stored[::2]]

    rows.delete_ready(conn, gone)

    left = sorted((row for row in [*stored, *same_rank] if key_of(row) not in gone), key=key_of)
    assert left == conn.execute("SELECT * FROM ready ORDER BY lane, rank").fetchall()


def test_just_the_delayed_tasks_that_came_due_are_deleted(conn: sqlite3.Connection) -> None:
    """A task that is due at the same instant is another task."""
    commit(conn, Batch(accepted_delayed=[delayed(1, 5), delayed(2, 5), delayed(1 + 2**40, 6)]))

    rows.delete_delayed(conn, [(5, 2), (6, 1 + 2**40), (7, 1)])

    assert [(5, 1)] == conn.execute("SELECT due_at_ms, id FROM delayed").fetchall()


def test_keys_of_every_kind_can_be_deleted(conn: sqlite3.Connection) -> None:
    """A unique key is the user's text: quotes, brackets and all."""
    keys = ["plain", "it's", '"quoted"', "[1,2]", "Zoë 😀", "a\\b", "", "1", "null"]
    rows.insert(conn, "INSERT INTO uniques VALUES", [(key, n) for n, key in enumerate([*keys, "stays"])])
    rows.insert(conn, "INSERT INTO chunks VALUES", [(n, 1, 0, "[]") for n in (1, 2, 2**52)])

    rows.delete_ids(conn, "uniques", keys)
    rows.delete_ids(conn, "chunks", [1, 2**52, 77])

    assert [("stays",)] == conn.execute("SELECT key FROM uniques").fetchall()
    assert [(2,)] == conn.execute("SELECT id FROM chunks").fetchall()


@pytest.mark.parametrize("priority", [-100, 0, 100])
def test_ranks_survive_the_way_through_json(conn: sqlite3.Connection, priority: int) -> None:
    """A rank has 61 bits; a reader that takes numbers for floats would delete another task."""
    stored = [ready(2**53 - 1 - n, priority=priority, lane=n % 7) for n in range(20)]
    commit(conn, Batch(accepted_ready=stored))

    rows.delete_ready(conn, [key_of(row) for row in stored[1:]])

    assert stored[:1] == conn.execute("SELECT * FROM ready").fetchall()
