"""How rows travel between SQLite and Python: many in one statement, because each statement step costs a hand-over.

Python's sqlite3 gives up the interpreter lock around every step and every prepare. Beside a busy event loop each of
these hand-overs may wait a whole switch interval: 1,000 rows by `executemany` took 8.3 s, the same rows in one
statement 13 ms. So rows go in by multi-row VALUES, keys go in as one JSON text, and rows come out as one JSON text
put together by SQLite and decoded in one call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Final

import msgspec

#: Statement sizes: a batch of n rows takes the largest that fits, again and again. Each is prepared once and kept;
#: one of 1,024 rows was no faster and held 1 MB.
_SIZES: Final = (256, 64, 16, 4, 1)

Value = int | float | str | bytes | None
Row = tuple[Value, ...]

_encode = msgspec.json.encode


def insert(conn: sqlite3.Connection, statement: str, rows: Sequence[Row], otherwise: str = "") -> None:
    """Run `statement` ("INSERT INTO t VALUES") for all rows, which all have the same width.

    `otherwise` is what follows the values: an ON CONFLICT clause.
    """
    if not rows:
        return
    place = f"({','.join('?' * len(rows[0]))})"
    start, left = 0, len(rows)
    for size in _SIZES:
        while left >= size:
            part = rows[start : start + size]
            conn.execute(f"{statement} {','.join([place] * size)}{otherwise}", list(chain.from_iterable(part)))
            start += size
            left -= size


def keys(values: Sequence[object]) -> str:
    """Return keys as the JSON text that `json_each(?)` reads."""
    return _encode(values).decode()


def delete_ready(conn: sqlite3.Connection, gone: Sequence[tuple[int, int]]) -> None:
    """Delete tasks from `ready` by (lane, rank)."""
    by_lane: dict[int, list[int]] = {}
    for lane, rank in gone:
        by_lane.setdefault(lane, []).append(rank)
    if len(by_lane) <= 4:  # a plain list is half the work of a list of pairs
        for lane, ranks in by_lane.items():
            conn.execute(
                "DELETE FROM ready WHERE lane = ? AND rank IN (SELECT value FROM json_each(?))", (lane, keys(ranks))
            )
    else:
        conn.execute(
            "DELETE FROM ready WHERE (lane, rank) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))", (keys(gone),)
        )


def delete_delayed(conn: sqlite3.Connection, gone: Sequence[tuple[int, int]]) -> None:
    """Delete tasks from `delayed` by (due, id)."""
    conn.execute(
        "DELETE FROM delayed WHERE (due_at_ms, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))",
        (keys(gone),),
    )


def delete_ids(conn: sqlite3.Connection, table: str, ids: Sequence[object]) -> None:
    column = "key" if table == "uniques" else "id"
    conn.execute(f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", (keys(ids),))
