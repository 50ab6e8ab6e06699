"""Reading tasks: in order, with their items, and past what the disk has spoilt."""

from __future__ import annotations

import sqlite3
import zlib

import pytest

from shoestring.core.errors import DatabaseDamaged
from shoestring.core.model import ID_MASK, rank_of
from shoestring.store.batch import Batch
from shoestring.store.tasks import Extra, Loaded, due_after, load_delayed, load_ready, load_ready_of, unique_holder
from tests.store.conftest import NOW_MS, chunk, commit, delayed, lane, ready


def ids(loaded: Loaded) -> list[int]:
    return [row.rank & ID_MASK for row in loaded.rows]


def damaged(loaded: Loaded) -> list[int]:
    """Return the tasks whose arguments do not match their checksum, as the dispatcher sees it."""
    return [row.rank & ID_MASK for row in loaded.rows if zlib.crc32(bytes(row.body)) != row.crc]


# -- in order -----------------------------------------------------------------------------------------------------


def test_tasks_of_a_lane_come_by_priority_then_age(conn: sqlite3.Connection) -> None:
    """The order of the rows is the order they run in."""
    rows = [ready(1), ready(2, priority=5), ready(3), ready(4, priority=-100), ready(5, priority=100), ready(6, lane=2)]
    commit(conn, Batch(accepted_ready=rows))

    assert [5, 2, 1, 3, 4] == ids(load_ready(conn, 1, -1, 10))
    assert [5, 2] == ids(load_ready(conn, 1, -1, 2))
    assert [1, 3] == ids(load_ready(conn, 1, rank_of(5, 2), 2))
    assert [[5], [6]] == [ids(each) for each in load_ready_of(conn, [(1, -1, 1), (2, -1, 9)])]
    assert [] == ids(load_ready(conn, 7, -1, 10))


def test_what_was_written_is_what_is_read(conn: sqlite3.Connection) -> None:
    """Every column, with the values that are hard to carry in text."""
    body = '{"name":"Zoë \\u0000 \U0001f600 \\" \\\\ ], [","n":-1e300}'
    extra = '{"expires_at_ms":5,"unique":"k, \\"[]","crashes":2,"started":true}'
    commit(conn, Batch(accepted_ready=[ready(1, body=body, extra=extra, handler=7), ready(2)]))

    first, second = load_ready(conn, 1, -1, 10).rows
    assert body == bytes(first.body).decode()
    assert first.extra == Extra(expires_at_ms=5, unique='k, "[]', crashes=2, started=True)
    assert [7, 0, NOW_MS, None, 1, 0] == [
        first.handler, first.attempt, first.enqueued_at_ms, first.job, first.items, first.due_at_ms,
    ]  # fmt: skip
    assert [None, b"{}"] == [second.extra, bytes(second.body)]


def test_delayed_tasks_come_by_their_instant(conn: sqlite3.Connection) -> None:
    """Keys are read ahead, rows when they are due."""
    rows = [delayed(3, 300), delayed(1, 100), delayed(2, 100), delayed(9, 50)]
    commit(conn, Batch(accepted_delayed=rows))

    assert [(50, 9), (100, 1), (100, 2), (300, 3)] == due_after(conn, (-1, -1), 10)
    assert [(100, 2), (300, 3)] == due_after(conn, (100, 1), 2)
    assert [(50, 9), (100, 1)] == due_after(conn, (-1, -1), 2)
    loaded = load_delayed(conn, [(300, 3), (50, 9), (7, 7)])
    assert [9, 3] == ids(loaded)
    assert [50, 300] == [row.due_at_ms for row in loaded.rows]


def test_a_chunk_comes_with_its_items_and_what_is_done_of_them(conn: sqlite3.Connection) -> None:
    """A claim is one read, whatever has to come with it."""
    commit(
        conn,
        Batch(
            accepted_ready=[ready(1, job=9, items=3), ready(2, job=9, items=3), ready(3)],
            accepted_chunks=[chunk(1), chunk(2, '["a",{"b":[]},null]')],
            progress={2: (2, '["3",{},{}]')},
        ),
    )

    loaded = load_ready(conn, 1, -1, 10)

    assert {1, 2} == set(loaded.chunks)
    assert [b"[1,2,3]", b"null"] == [bytes(loaded.chunks[1].items), bytes(loaded.chunks[1].state)]
    assert [b'["a",{"b":[]},null]', b'["3",{},{}]'] == [bytes(loaded.chunks[2].items), bytes(loaded.chunks[2].state)]


def test_a_unique_key_says_who_holds_it(conn: sqlite3.Connection) -> None:
    """Whoever comes second is told the first's number."""
    commit(conn, Batch(accepted_ready=[ready(1)], uniques={"k": 1}))

    assert [1, None] == [unique_holder(conn, "k"), unique_holder(conn, "other")]


# -- past what the disk has spoilt --------------------------------------------------------------------------------

SPOILT = {
    "a letter": "UPDATE {table} SET {column} = replace({column}, 'good', 'gooD') WHERE {key} = 2",
    "no JSON": "UPDATE {table} SET {column} = 'rubbish' WHERE {key} = 2",
    "half of it": "UPDATE {table} SET {column} = substr({column}, 1, 5) WHERE {key} = 2",
    "empty": "UPDATE {table} SET {column} = '' WHERE {key} = 2",
    "a comma": "UPDATE {table} SET {column} = {column} || ',5' WHERE {key} = 2",
    "another row": "UPDATE {table} SET {column} = {column} || '],[' WHERE {key} = 2",
    "no UTF-8": "UPDATE {table} SET {column} = CAST(x'7b22ff' AS TEXT) WHERE {key} = 2",
    "bytes": "UPDATE {table} SET {column} = x'00ff00' WHERE {key} = 2",
    "a number": "UPDATE {table} SET {column} = 17 WHERE {key} = 2",
    "deep": "UPDATE {table} SET {column} = replace(printf('%.10000c', '['), '', '') WHERE {key} = 2",
}


@pytest.fixture
def three(conn: sqlite3.Connection) -> sqlite3.Connection:
    """Three tasks, ready and delayed, of which the second will be spoilt."""
    body = '{"is":"good"}'
    commit(
        conn,
        Batch(
            lanes={1: lane(accepted=9)},
            accepted_ready=[ready(n, body=body) for n in (1, 2, 3)],
            accepted_delayed=[delayed(n, 100 + n, body=body) for n in (1, 2, 3)],
        ),
    )
    return conn


@pytest.mark.parametrize("how", SPOILT)
def test_a_task_that_is_spoilt_is_found_and_its_neighbours_are_as_they_were(
    three: sqlite3.Connection, how: str
) -> None:
    """All rows of a load travel in one text: one that does not read must not take the others with it."""
    three.execute(SPOILT[how].format(table="ready", column="body", key=f"rank & {ID_MASK}"))
    three.execute(SPOILT[how].format(table="delayed", column="body", key="id"))

    now, later = load_ready(three, 1, -1, 10), load_delayed(three, due_after(three, (-1, -1), 10))

    for loaded in (now, later):
        assert [1, 2, 3] == ids(loaded)
        assert [2] == damaged(loaded)
        assert [b'{"is":"good"}'] * 2 == [bytes(loaded.rows[0].body), bytes(loaded.rows[2].body)]


@pytest.mark.parametrize("how", ["no JSON", "no UTF-8", "a number", "another row", "empty"])
def test_a_task_whose_extras_are_spoilt_is_spoilt(three: sqlite3.Connection, how: str) -> None:
    """It may have expired, or started before: nobody knows, so it must not run."""
    three.execute(f"UPDATE ready SET extra = '{{}}' WHERE rank & {ID_MASK} = 2")
    three.execute(SPOILT[how].format(table="ready", column="extra", key=f"rank & {ID_MASK}"))

    loaded = load_ready(three, 1, -1, 10)

    assert [[1, 2, 3], [2]] == [ids(loaded), damaged(loaded)]


def test_a_row_that_vanishes_from_the_text_is_not_taken_for_the_end(three: sqlite3.Connection) -> None:
    """A NULL makes SQLite leave the row out; a load that seems short would end the lane."""
    three.execute("PRAGMA writable_schema = ON")
    three.execute("UPDATE sqlite_schema SET sql = replace(sql, 'body TEXT NOT NULL', 'body TEXT') WHERE name = 'ready'")
    three.execute("PRAGMA writable_schema = RESET")
    three.execute(f"UPDATE ready SET body = NULL WHERE rank & {ID_MASK} = 2")

    loaded = load_ready(three, 1, -1, 3)

    assert [[1, 2, 3], [2]] == [ids(loaded), damaged(loaded)]


def test_a_row_whose_numbers_are_spoilt_ends_the_daemon_with_its_name(three: sqlite3.Connection) -> None:
    """Without knowing whose task it is, nothing can be done about it that would not spoil the books."""
    three.execute(f"UPDATE ready SET items = 'many' WHERE rank & {ID_MASK} = 2")

    with pytest.raises(DatabaseDamaged, match=r"a task 1, \d+, 0 did not read back as it was written"):
        load_ready(three, 1, -1, 10)


@pytest.fixture
def chunks(conn: sqlite3.Connection) -> sqlite3.Connection:
    commit(
        conn,
        Batch(
            accepted_ready=[ready(n, job=9, items=2) for n in (1, 2, 3)],
            accepted_chunks=[chunk(n, '["good","good"]', 2) for n in (1, 2, 3)],
            progress={n: (n, '["1",{},{}]') for n in (1, 2, 3)},
        ),
    )
    return conn


@pytest.mark.parametrize("how", SPOILT)
def test_a_chunk_whose_items_are_spoilt_keeps_what_is_known_of_it(chunks: sqlite3.Connection, how: str) -> None:
    """How many of its items are done is in another row: with that the books stay right."""
    chunks.execute(SPOILT[how].format(table="chunks", column="items", key="id"))

    loaded = load_ready(chunks, 1, -1, 10)

    assert [1, 2, 3] == ids(loaded)
    spoilt = [each.id for each in loaded.chunks.values() if zlib.crc32(bytes(each.items)) != each.crc]
    assert [2] == spoilt
    assert [2, b'["1",{},{}]'] == [loaded.chunks[2].size, bytes(loaded.chunks[2].state)]
    assert b'["good","good"]' == bytes(loaded.chunks[3].items)


@pytest.mark.parametrize("how", ["no JSON", "no UTF-8", "another row"])
def test_a_chunk_whose_progress_is_spoilt_ends_the_daemon_with_its_name(chunks: sqlite3.Connection, how: str) -> None:
    """Its items were counted as they ended: run or given up again, they would be counted twice."""
    chunks.execute(SPOILT[how].format(table="progress", column="state", key="id"))

    with pytest.raises(DatabaseDamaged, match="the progress of chunk 2 did not read back as it was written"):
        load_ready(chunks, 1, -1, 10)


def test_more_than_one_text_can_hold_is_read_row_by_row(conn: sqlite3.Connection) -> None:
    """SQLite's texts end at a billion bytes; who allows payloads of many megabytes must not meet that at a start."""
    commit(conn, Batch(accepted_ready=[ready(n, body=f'"{n}"' + " " * 1_000) for n in range(1, 9)]))
    conn.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 4_000)

    loaded = load_ready(conn, 1, -1, 10)

    assert [[1, 2, 3, 4, 5, 6, 7, 8], []] == [ids(loaded), damaged(loaded)]
