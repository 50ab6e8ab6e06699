"""One transaction after another, failed ones among them: the file holds what was promised, and nothing else."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from shoestring.core.model import ID_MASK, rank_of
from shoestring.store.batch import Batch, Loser, apply
from shoestring.store.db import transact
from shoestring.store.rows import Row
from shoestring.store.schema import open_database
from tests.store.conftest import chunk, commit, delayed, job, lane, ready

TABLES = {
    "ready": "lane, rank",
    "delayed": "due_at_ms, id",
    "chunks": "id",
    "progress": "id",
    "discarded": "id",
    "uniques": "key",
    "parks": "scope, name",
    "buckets": "queue, user",
    "jobs": "id",
}


def table(conn: sqlite3.Connection, name: str) -> list[tuple[object, ...]]:
    return conn.execute(f"SELECT * FROM {name} ORDER BY {TABLES[name]}").fetchall()


# -- unique keys --------------------------------------------------------------------------------------------------


def test_the_second_to_want_a_key_is_left_out_and_told_who_holds_it(conn: sqlite3.Connection) -> None:
    """Two producers, one key, two transactions: one task."""
    commit(conn, Batch(lanes={1: lane(accepted=1)}, accepted_ready=[ready(1)], uniques={"k": 1}))
    second = Batch(
        lanes={1: lane(accepted=4, delayed=1)},
        accepted_ready=[ready(2), ready(3)],
        accepted_delayed=[delayed(4, 500)],
        uniques={"k": 2, "other": 3, "k2": 4},
    )
    commit(conn, Batch(uniques={"k2": 77}))

    losers = transact(conn, apply, (second,))

    assert {2: Loser(1, 1, delayed=False), 4: Loser(77, 1, delayed=True)} == losers
    assert [1, 3] == [row[1] & ID_MASK for row in table(conn, "ready")]  # type: ignore[operator]
    assert [] == table(conn, "delayed")
    assert [("k", 1), ("k2", 77), ("other", 3)] == table(conn, "uniques")
    assert [(2, 0)] == conn.execute("SELECT accepted, delayed FROM lanes").fetchall()


def test_a_key_is_free_for_the_next_in_the_very_transaction_its_task_ends(conn: sqlite3.Connection) -> None:
    """A task that enqueues its own successor under the same key must not be told that it still holds it."""
    commit(conn, Batch(accepted_ready=[ready(1)], uniques={"k": 1}))

    losers = transact(
        conn,
        apply,
        (Batch(ready_gone=[ready(1)[:2]], uniques_gone=["k"], accepted_ready=[ready(2)], uniques={"k": 2}),),  # type: ignore[list-item]
    )

    assert {} == losers
    assert [("k", 2)] == table(conn, "uniques")


def test_a_batch_that_does_not_fit_leaves_nothing_of_itself(conn: sqlite3.Connection) -> None:
    """All of it or nothing, whatever was through when it failed."""
    commit(conn, Batch(accepted_ready=[ready(1)], uniques={"k": 1}))
    before = {name: table(conn, name) for name in TABLES}

    with pytest.raises(sqlite3.IntegrityError):
        commit(conn, Batch(ready_gone=[ready(1)[:2]], uniques_gone=["k"], accepted_chunks=[chunk(1), chunk(1)]))  # type: ignore[list-item]

    assert before == {name: table(conn, name) for name in TABLES}
    assert not conn.in_transaction


def test_the_books_of_a_lane_are_replaced_and_the_lane_is_found_by_name(conn: sqlite3.Connection) -> None:
    """The process is their master; a commit writes what they are now."""
    commit(conn, Batch(lanes={1: lane(accepted=5), 2: lane(2, accepted=1)}))
    commit(conn, Batch(lanes={1: lane(accepted=7, completed=7)}))

    assert [(1, 7, 7), (2, 1, 0)] == conn.execute("SELECT id, accepted, completed FROM lanes ORDER BY id").fetchall()


def test_a_handler_keeps_its_number(conn: sqlite3.Connection) -> None:
    """Rows hold the number: given to another name, their tasks would call the wrong function."""
    commit(conn, Batch(handlers=[(1, "first")]))
    commit(conn, Batch(handlers=[(1, "second"), (2, "first"), (3, "third")]))

    assert [(1, "first"), (3, "third")] == conn.execute("SELECT id, name FROM handlers ORDER BY id").fetchall()


def test_what_ended_while_a_failed_batch_waited_is_not_written(conn: sqlite3.Connection) -> None:
    """In one transaction deletes come before inserts: a row that is in both would stay for ever."""
    commit(conn, Batch(accepted_ready=[ready(1, job=9, items=3)], accepted_chunks=[chunk(1)]))
    failed = Batch(progress={1: (1, "[]")}, ready={2: ready(2), 3: ready(3)}, lanes={1: lane(accepted=2)})
    later = Batch(
        ready_gone=[(1, rank_of(0, 1)), (1, rank_of(0, 2))],
        chunks_gone=[1],
        progress_gone=[1],
        lanes={1: lane(accepted=2, completed=1)},
        next_id=7,
    )

    failed.absorb(later)
    commit(conn, failed)

    assert [rank_of(0, 3)] == [row[1] for row in table(conn, "ready")]
    assert [[], []] == [table(conn, "chunks"), table(conn, "progress")]
    assert [(2, 1)] == conn.execute("SELECT accepted, completed FROM lanes").fetchall()
    assert [(7,)] == conn.execute("SELECT value FROM meta WHERE key = 'next_id'").fetchall()


# -- any sequence -------------------------------------------------------------------------------------------------


@dataclass
class Wanted:
    """What the file must hold, table by table, by key."""

    ready: dict[int, Row] = field(default_factory=dict)  # by task id
    delayed: dict[int, Row] = field(default_factory=dict)
    chunks: dict[int, Row] = field(default_factory=dict)
    progress: dict[int, Row] = field(default_factory=dict)
    discarded: dict[int, Row] = field(default_factory=dict)
    uniques: dict[str, int] = field(default_factory=dict)
    parks: dict[tuple[str, str], Row] = field(default_factory=dict)
    buckets: dict[tuple[str, str], Row] = field(default_factory=dict)
    jobs: dict[int, Row] = field(default_factory=dict)


class OneTransactionAfterAnother(RuleBasedStateMachine):
    """Batches as the engine gathers them, against plain dictionaries.

    `batch` is being gathered. When a transaction fails, as on a full disk, `failed` waits while another batch is
    gathered; then that one is absorbed, and both go in one transaction. What producers were not promised is shed.
    """

    @initialize()
    def start(self) -> None:
        self.folder = TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.conn = open_database(Path(self.folder.name) / "q.db")
        self.wanted = Wanted()
        self.batch = Batch()
        self.failed: Batch | None = None
        #: Accepted in this batch and not promised yet: by id, the row's table, row, chunk and key.
        self.asked: dict[int, tuple[str, Row, Row | None, str | None]] = {}
        self.replayed: dict[int, Row] = {}
        self.keys: dict[int, str] = {}  # by task, the unique key it holds
        self.next_id = 1
        self.accepted = 0
        self.ended = 0
        self.losers_expected: dict[int, int] = {}

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id - 1

    def is_stored(self, task_id: int) -> bool:
        """Tell whether its row is in a commit that was begun, so that it has to be deleted to be gone."""
        return task_id not in self.batch.ready

    # -- what producers do ----------------------------------------------------------------------------------------

    @rule(priority=st.integers(-2, 2), key=st.sampled_from([None, None, "a", "b"]))
    def a_task_is_accepted(self, priority: int, key: str | None) -> None:
        if key is not None and key in self.batch.uniques:
            return  # admission answers with the one that was first
        task_id = self.new_id()
        row = ready(task_id, priority=priority)
        self.batch.accepted_ready.append(row)
        self.ask("ready", task_id, row, key=key)

    @rule(due_at_ms=st.integers(1, 9), key=st.sampled_from([None, "a", "b"]))
    def a_delayed_task_is_accepted(self, due_at_ms: int, key: str | None) -> None:
        if key is not None and key in self.batch.uniques:
            return
        task_id = self.new_id()
        row = delayed(task_id, due_at_ms)
        self.batch.accepted_delayed.append(row)
        self.ask("delayed", task_id, row, key=key)

    @rule()
    def a_chunk_is_accepted(self) -> None:
        task_id = self.new_id()
        row, items = ready(task_id, job=9, items=3), chunk(task_id)
        self.batch.accepted_ready.append(row)
        self.batch.accepted_chunks.append(items)
        self.ask("ready", task_id, row, items=items)

    def ask(self, where: str, task_id: int, row: Row, *, items: Row | None = None, key: str | None = None) -> None:
        self.asked[task_id] = (where, row, items, key)
        self.accepted += 1
        if key is not None:
            self.batch.uniques[key] = task_id

    @rule(waits=st.booleans())
    def a_volatile_task_is_taken(self, waits: bool) -> None:
        """Its producer was answered: it is never shed."""
        task_id = self.new_id()
        self.accepted += 1
        if waits:
            row = self.batch.delayed[task_id] = self.wanted.delayed[task_id] = delayed(task_id, 5)
        else:
            row = self.batch.ready[task_id] = self.wanted.ready[task_id] = ready(task_id)
        assert row is not None

    # -- what happens to tasks ------------------------------------------------------------------------------------

    def pick(self, data: st.DataObject, of: dict[int, Row]) -> tuple[int, Row]:
        task_id = data.draw(st.sampled_from(sorted(of)))
        return task_id, of[task_id]

    def take_row(self, task_id: int, row: Row) -> None:
        del self.wanted.ready[task_id]
        if self.is_stored(task_id):
            self.batch.ready_gone.append((1, row[1]))  # type: ignore[arg-type]
        else:
            del self.batch.ready[task_id]

    @precondition(lambda self: self.wanted.ready)
    @rule(data=st.data(), keep=st.booleans())
    def a_task_ends(self, data: st.DataObject, keep: bool) -> None:
        task_id, row = self.pick(data, self.wanted.ready)
        self.take_row(task_id, row)
        self.ended += 1
        if task_id in self.wanted.chunks:
            del self.wanted.chunks[task_id]
            self.batch.chunks_gone.append(task_id)
            self.batch.progress_gone.append(task_id)
            self.batch.progress.pop(task_id, None)
            self.wanted.progress.pop(task_id, None)
        if (key := self.keys.pop(task_id, None)) is not None:
            self.batch.uniques_gone.append(key)
            self.wanted.uniques.pop(key)
        if keep:
            self.batch.discarded.append(gone := (task_id, 1, row[1], 1, 1, 0, 0, None, "{}", None, "E", "T"))
            self.wanted.discarded[task_id] = gone

    @precondition(lambda self: self.wanted.ready)
    @rule(data=st.data(), due_at_ms=st.integers(1, 9))
    def a_task_is_put_off(self, data: st.DataObject, due_at_ms: int) -> None:
        task_id, row = self.pick(data, self.wanted.ready)
        self.take_row(task_id, row)
        self.batch.delayed[task_id] = self.wanted.delayed[task_id] = (due_at_ms, task_id, *row)

    @precondition(lambda self: self.committed_delayed())
    @rule(data=st.data())
    def a_task_comes_due(self, data: st.DataObject) -> None:
        task_id, row = self.pick(data, self.committed_delayed())
        del self.wanted.delayed[task_id]
        self.batch.delayed_gone.append((row[0], task_id))  # type: ignore[arg-type]
        self.batch.ready[task_id] = self.wanted.ready[task_id] = row[2:]

    def committed_delayed(self) -> dict[int, Row]:
        """Timers know a task only once it is in the file."""
        waiting = {**self.batch.delayed, **(self.failed.delayed if self.failed is not None else {})}
        return {task_id: row for task_id, row in self.wanted.delayed.items() if task_id not in waiting}

    @precondition(lambda self: self.wanted.chunks)
    @rule(data=st.data(), state=st.text(max_size=3))
    def a_chunk_gets_on(self, data: st.DataObject, state: str) -> None:
        task_id = data.draw(st.sampled_from(sorted(self.wanted.chunks)))
        self.batch.progress[task_id] = self.wanted.progress[task_id] = (task_id, state)

    @precondition(lambda self: self.wanted.discarded and self.failed is None)
    @rule(data=st.data())
    def a_discarded_task_is_replayed(self, data: st.DataObject) -> None:
        """Only what is in the file is found; the row goes with the commit that stores the new task."""
        waiting = {row[0] for row in self.batch.discarded}
        found = {number: row for number, row in self.wanted.discarded.items() if number not in waiting}
        if not found:
            return
        number, _ = self.pick(data, found)
        self.replayed[number] = self.wanted.discarded.pop(number)
        self.batch.discarded_gone.append(number)
        task_id = self.new_id()
        self.batch.accepted_ready.append(new := ready(task_id))
        self.ask("ready", task_id, new)

    @rule(until_ms=st.integers(1, 99), scope=st.sampled_from(["lane", "queue", "user"]))
    def something_is_parked(self, until_ms: int, scope: str) -> None:
        self.batch.parks[scope, "x"] = self.wanted.parks[scope, "x"] = (scope, "x", until_ms, "429")

    @rule(tokens=st.integers(0, 9))
    def a_bucket_is_charged(self, tokens: int) -> None:
        self.batch.buckets["q", "u"] = self.wanted.buckets["q", "u"] = ("q", "u", float(tokens), 10.0, 1.0, tokens)

    @rule(number=st.integers(101, 103), state=st.sampled_from(["open", "sealed", "done", "cancelled"]))
    def a_job_changes(self, number: int, state: str) -> None:
        self.batch.jobs[number] = self.wanted.jobs[number] = job(number, state=state)

    # -- transactions ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.failed is None)
    @rule()
    def it_is_committed(self) -> None:
        self.batch.lanes[1] = self.books()
        holders = {key: self.wanted.uniques[key] for key in self.batch.uniques if key in self.wanted.uniques}
        losers = transact(self.conn, apply, (self.batch,))
        for task_id, (where, row, items, key) in self.asked.items():
            if key is not None and key in holders:
                assert Loser(holders[key], 1, delayed=where == "delayed") == losers.pop(task_id)
                self.accepted -= 1
                continue
            {"ready": self.wanted.ready, "delayed": self.wanted.delayed}[where][task_id] = row
            if items is not None:
                self.wanted.chunks[task_id] = items
            if key is not None:
                self.wanted.uniques[key] = task_id
                self.keys[task_id] = key
        assert {} == losers
        self.asked.clear()
        self.replayed.clear()
        self.batch = Batch()
        self.compare()

    def books(self) -> Row:
        waiting = len(self.wanted.delayed) + sum(where == "delayed" for where, *_ in self.asked.values())
        return lane(accepted=self.accepted, completed=self.ended, delayed=waiting)

    @precondition(lambda self: self.failed is None)
    @rule()
    def the_disk_is_full(self) -> None:
        self.batch.lanes[1] = self.books()
        before = {name: table(self.conn, name) for name in TABLES}
        with pytest.raises(sqlite3.OperationalError, match="full"):
            transact(self.conn, apply_and_fail, (self.batch,))
        assert before == {name: table(self.conn, name) for name in TABLES}
        self.shed(self.batch)
        self.failed, self.batch = self.batch, Batch()

    @precondition(lambda self: self.failed is not None)
    @rule()
    def it_is_tried_again(self) -> None:
        """What was gathered meanwhile goes along; what was accepted meanwhile is refused like the rest."""
        assert self.failed is not None
        self.shed(self.batch)
        self.failed.absorb(self.batch)
        self.batch, self.failed = self.failed, None

    def shed(self, batch: Batch) -> None:
        batch.shed_accepted()
        batch.discarded_gone = [number for number in batch.discarded_gone if number not in self.replayed]
        self.wanted.discarded.update(self.replayed)
        self.replayed.clear()
        self.accepted -= len(self.asked)
        self.asked.clear()

    # -- what must hold -------------------------------------------------------------------------------------------

    def compare(self) -> None:
        for name in TABLES:
            wanted = getattr(self.wanted, name)
            rows = list(wanted.items()) if name == "uniques" else list(wanted.values())
            assert sorted(rows, key=repr) == sorted(table(self.conn, name), key=repr), name
        stored = self.conn.execute("SELECT accepted, completed, delayed FROM lanes").fetchone() or (0, 0, 0)
        assert (self.accepted, self.ended, len(self.wanted.delayed)) == stored

    def teardown(self) -> None:
        if self.failed is not None:
            self.it_is_tried_again()
        self.it_is_committed()
        with closing(self.conn):
            assert [("ok",)] == self.conn.execute("PRAGMA integrity_check").fetchall()
        self.folder.cleanup()


def apply_and_fail(conn: sqlite3.Connection, batch: Batch) -> None:
    apply(conn, batch)
    raise sqlite3.OperationalError("database or disk is full")


TestOneTransactionAfterAnother = OneTransactionAfterAnother.TestCase
TestOneTransactionAfterAnother.settings = settings(max_examples=60, stateful_step_count=40)
