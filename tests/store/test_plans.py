"""How SQLite runs the statements that run all day: by key, whatever the tables hold.

A scan is not slow in a test and an outage at ten million tasks. The plans are asked for with no statistics, as in
production, where nobody runs ANALYZE.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable

import pytest

from shoestring.store import opening, sweeping, tasks
from shoestring.store.batch import Batch, apply
from tests.store.conftest import chunk, delayed, job, lane, ready

#: Tables that hold one row per task, per item or per user: a daemon that reads all of one stands still.
LARGE = ("ready", "delayed", "chunks", "progress", "discarded", "uniques", "lanes", "buckets", "jobs")

FULL_BATCH = Batch(
    accepted_ready=[ready(1), ready(2, job=9)],
    accepted_delayed=[delayed(3, 5)],
    accepted_chunks=[chunk(2)],
    ready={4: ready(4)},
    delayed={5: delayed(5, 5)},
    discarded=[(6, 1, 6, 1, 1, 0, 0, None, "{}", None, "E", "T")],
    uniques={"k": 1},
    ready_gone=[(1, 90), (2, 91), (3, 92), (4, 93), (5, 94)],
    delayed_gone=[(5, 95)],
    chunks_gone=[96],
    progress_gone=[97],
    discarded_gone=[98],
    uniques_gone=["old"],
    progress={2: (2, "[]")},
    lanes={1: lane(accepted=9)},
    jobs={9: job(9)},
    buckets={("q", "u"): ("q", "u", 1.0, 2.0, 1.0, 0)},
    parks={("lane", "1"): ("lane", "1", 5, "")},
    parks_gone=[("user", "u")],
    handlers=[(1, "h")],
    next_id=100,
)

#: What runs for every task, lane or commit.
HOT: dict[str, Callable[[sqlite3.Connection], object]] = {
    "commit": lambda conn: apply(conn, FULL_BATCH),
    "commit of one lane": lambda conn: apply(conn, Batch(ready_gone=[(1, 90), (1, 91)])),
    "load a lane": lambda conn: tasks.load_ready_of(conn, [(1, -1, 100), (2, 5, 100)]),
    "next instants": lambda conn: tasks.due_after(conn, (5, 1), 100),
    "load what is due": lambda conn: tasks.load_delayed(conn, [(5, 3), (5, 5)]),
    "who holds a key": lambda conn: tasks.unique_holder(conn, "k"),
    "meet a user": lambda conn: opening.find_lanes(conn, [("q", "u"), ("q", "v")]),
    "mark an at-most-once task": lambda conn: opening.mark_started(conn, 1, 5, tasks.Extra(started=True)),
    "purge a slice": lambda conn: sweeping.purge_job(conn, 9, 1, -1, 100),
}


@pytest.mark.parametrize("name", HOT)
def test_what_runs_all_day_finds_its_rows_by_key(conn: sqlite3.Connection, name: str) -> None:
    """No statement of the hot path reads a table from one end to the other."""
    fill(conn)
    said: list[str] = []
    conn.set_trace_callback(said.append)
    HOT[name](conn)
    conn.set_trace_callback(None)

    assert said
    for statement in said:
        for line in plan(conn, statement):
            assert not scans(line), f"{line}: {statement[:200]}"


def fill(conn: sqlite3.Connection) -> None:
    """Have rows in every table, without statistics."""
    conn.execute("BEGIN")
    apply(conn, Batch(accepted_ready=[ready(7, job=9)], accepted_chunks=[chunk(7)], lanes={1: lane(accepted=1)}))
    conn.execute("COMMIT")


@pytest.mark.parametrize("name", ["load a lane", "next instants"])
def test_what_comes_first_is_read_in_the_order_it_is_stored(conn: sqlite3.Connection, name: str) -> None:
    """A sort would read all that waits to return the first hundred of it."""
    said: list[str] = []
    conn.set_trace_callback(said.append)
    HOT[name](conn)
    conn.set_trace_callback(None)

    assert [] == [line for statement in said for line in plan(conn, statement) if "TEMP B-TREE" in line]


def plan(conn: sqlite3.Connection, statement: str) -> list[str]:
    return [row[3] for row in conn.execute(f"EXPLAIN QUERY PLAN {statement}")]


def scans(line: str) -> bool:
    found = re.match(r"SCAN (\w+)", line)
    return found is not None and found[1] in LARGE


def test_the_guard_sees_a_scan(conn: sqlite3.Connection) -> None:
    """A guard that finds nothing must be able to."""
    scanning = "DELETE FROM ready WHERE rank = 5"

    assert any(scans(line) for line in plan(conn, scanning))
    assert not any(scans(line) for line in plan(conn, "DELETE FROM ready WHERE lane = 1 AND rank = 5"))


def test_a_start_reads_no_task(conn: sqlite3.Connection) -> None:
    """Ten million stored tasks must not make a start slower: it looks at users with work and at jobs, not at tasks."""
    said: list[str] = []
    conn.set_trace_callback(said.append)
    opening.begin_generation(conn)
    conn.set_trace_callback(None)

    for statement in said:
        for line in plan(conn, statement):
            found = re.match(r"SCAN (\w+)", line)
            assert found is None or found[1] not in ("ready", "delayed", "chunks", "progress", "uniques"), line
