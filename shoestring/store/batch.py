"""What one transaction writes, gathered as plain data on the event loop and applied in one go on the thread.

A batch belongs to the loop until `Committer` hands it over; from then on it belongs to the thread until the commit is
through. Everything in it is either rows that are independent of what the database holds, or absolute figures, so that
a batch that failed can be applied again, and merged with the next one, without counting anything twice.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import Any, Final

from shoestring.core.model import ID_MASK
from shoestring.store import rows
from shoestring.store.rows import Row

TASK_COLUMNS: Final = "handler, attempt, enqueued_at_ms, job, items, crc, body, extra"


@dataclass(slots=True)
class Batch:
    """Rows to write and keys to delete. Tuples are in the order of the tables' columns (`store/schema.py`)."""

    #: Accepted from producers in this batch: what is refused, and given back, when the disk is full.
    accepted_ready: list[Row] = field(default_factory=list)
    accepted_delayed: list[Row] = field(default_factory=list)
    accepted_chunks: list[Row] = field(default_factory=list)
    #: Answered already (volatile) or moved between tables: kept until it could be written. By task id, because a task
    #: that ends before the commit takes its row out again and never touches the disk.
    ready: dict[int, Row] = field(default_factory=dict)
    delayed: dict[int, Row] = field(default_factory=dict)
    discarded: list[Row] = field(default_factory=list)
    uniques: dict[str, int] = field(default_factory=dict)

    ready_gone: list[tuple[int, int]] = field(default_factory=list)
    delayed_gone: list[tuple[int, int]] = field(default_factory=list)
    chunks_gone: list[int] = field(default_factory=list)
    progress_gone: list[int] = field(default_factory=list)
    discarded_gone: list[int] = field(default_factory=list)
    uniques_gone: list[str] = field(default_factory=list)

    # Absolute figures, by key: written as they are when the batch is handed over.
    progress: dict[int, Row] = field(default_factory=dict)
    lanes: dict[int, Row] = field(default_factory=dict)
    jobs: dict[int, Row] = field(default_factory=dict)
    buckets: dict[tuple[str, str], Row] = field(default_factory=dict)
    parks: dict[tuple[str, str], Row] = field(default_factory=dict)
    parks_gone: list[tuple[str, str]] = field(default_factory=list)
    handlers: list[Row] = field(default_factory=list)
    next_id: int | None = None

    @property
    def is_small(self) -> bool:
        """Tell whether writing this takes less than having a thread do it."""
        return (
            len(self.accepted_ready) + len(self.ready) + len(self.ready_gone) + len(self.lanes) <= _SMALL
            and len(self.accepted_delayed) + len(self.delayed) + len(self.delayed_gone) + len(self.progress) <= _SMALL
            and not (self.accepted_chunks or self.discarded or self.jobs or self.chunks_gone or self.discarded_gone)
        )

    def shed_accepted(self) -> None:
        """Take out what producers were not yet promised; their figures are the caller's to correct."""
        self.accepted_ready, self.accepted_delayed, self.accepted_chunks = [], [], []
        self.uniques = {}

    def absorb(self, later: Batch) -> None:
        """Append what was gathered since this batch was handed over and failed, so that both go in one transaction.

        What ended since must not be written any more: in one transaction deletes come before inserts.
        """
        for lane, rank in later.ready_gone:
            if self.ready.pop(rank & ID_MASK, None) is None:
                self.ready_gone.append((lane, rank))
        for chunk in later.progress_gone:
            self.progress.pop(chunk, None)
        for name in _LISTS:
            getattr(self, name).extend(getattr(later, name))
        for name in _DICTS:
            getattr(self, name).update(getattr(later, name))
        self.next_id = self.next_id if later.next_id is None else later.next_id


_LISTS: Final = [
    "accepted_ready",
    "accepted_delayed",
    "accepted_chunks",
    "discarded",
    "delayed_gone",
    "chunks_gone",
    "progress_gone",
    "discarded_gone",
    "uniques_gone",
    "parks_gone",
    "handlers",
]
_DICTS: Final = ["ready", "delayed", "uniques", "progress", "lanes", "jobs", "buckets", "parks"]


@dataclass(frozen=True, slots=True)
class Loser:
    """An accepted task that was left out: another task holds its unique key."""

    holder: int
    lane: int
    delayed: bool


def apply(conn: sqlite3.Connection, batch: Batch) -> dict[int, Loser]:
    """Write a batch. One transaction, which the caller opens and commits.

    Deletes come first: a task that moved within the batch is deleted under its old key and inserted under its new one.
    Returns the accepted tasks that were left out because another task holds their unique key, by id.
    """
    _apply_deletes(conn, batch)
    losers = _leave_out_duplicates(conn, batch) if batch.uniques else {}
    rows.insert(conn, "INSERT OR IGNORE INTO handlers VALUES", batch.handlers)
    rows.insert(conn, "INSERT INTO lanes VALUES", list(batch.lanes.values()), _UPDATE_LANE)
    rows.insert(conn, "INSERT OR REPLACE INTO jobs VALUES", list(batch.jobs.values()))
    rows.insert(conn, "INSERT INTO chunks VALUES", batch.accepted_chunks)
    rows.insert(conn, "INSERT INTO ready VALUES", batch.accepted_ready)
    rows.insert(conn, "INSERT INTO ready VALUES", list(batch.ready.values()))
    rows.insert(conn, "INSERT INTO delayed VALUES", batch.accepted_delayed)
    rows.insert(conn, "INSERT INTO delayed VALUES", list(batch.delayed.values()))
    rows.insert(conn, "INSERT INTO discarded VALUES", batch.discarded)
    rows.insert(conn, "INSERT INTO uniques VALUES", list(batch.uniques.items()))
    rows.insert(conn, "INSERT OR REPLACE INTO progress VALUES", list(batch.progress.values()))
    rows.insert(conn, "INSERT OR REPLACE INTO buckets VALUES", list(batch.buckets.values()))
    rows.insert(conn, "INSERT OR REPLACE INTO parks VALUES", list(batch.parks.values()))
    if batch.next_id is not None:
        conn.execute("UPDATE meta SET value = ? WHERE key = 'next_id'", (batch.next_id,))
    return losers


def _leave_out_duplicates(conn: sqlite3.Connection, batch: Batch) -> dict[int, Loser]:
    # Decided here, in the transaction, because only here nothing can come between the look and the write.
    held: list[tuple[str, int]] = conn.execute(
        "SELECT key, id FROM uniques WHERE key IN (SELECT value FROM json_each(?))", (rows.keys(list(batch.uniques)),)
    ).fetchall()
    holders = {batch.uniques.pop(key): holder for key, holder in held}
    losers: dict[int, Loser] = {}
    for name, lane_at in (("accepted_ready", 0), ("accepted_delayed", 2)):
        kept: list[Row] = []
        for row in getattr(batch, name):
            task_id = row[1] & ID_MASK  # in `ready` the rank, in `delayed` the id itself
            if task_id in holders:
                losers[task_id] = Loser(holders[task_id], row[lane_at], lane_at > 0)
            else:
                kept.append(row)
        setattr(batch, name, kept)
    for loser in losers.values():
        books: list[Any] = list(batch.lanes[loser.lane])
        books[_ACCEPTED] -= 1
        books[_DELAYED] -= loser.delayed
        batch.lanes[loser.lane] = tuple(books)
    return losers


#: An update in place: REPLACE would write the page of the unique index as well, at every commit.
_UPDATE_LANE: Final = " ON CONFLICT (id) DO UPDATE SET " + ", ".join(
    f"{name} = excluded.{name}"
    for name in ("accepted", "completed", "discarded", "cancelled", "expired", "dropped", "delayed")
)
#: A batch of at most so many rows costs less than the two hand-overs to the thread and back (100 us).
_SMALL: Final = 32

#: Places of these columns in a row of `lanes`.
_ACCEPTED: Final = 3
_DELAYED: Final = 9


def _apply_deletes(conn: sqlite3.Connection, batch: Batch) -> None:
    if batch.ready_gone:
        rows.delete_ready(conn, batch.ready_gone)
    if batch.delayed_gone:
        rows.delete_delayed(conn, batch.delayed_gone)
    for table, gone in (
        ("chunks", batch.chunks_gone),
        ("progress", batch.progress_gone),
        ("discarded", batch.discarded_gone),
        ("uniques", batch.uniques_gone),
    ):
        if gone:
            rows.delete_ids(conn, table, gone)
    for scope, name in batch.parks_gone:
        conn.execute("DELETE FROM parks WHERE scope = ? AND name = ?", (scope, name))
