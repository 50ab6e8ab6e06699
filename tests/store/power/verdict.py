"""What must be true of whatever a power cut left. Read with the ordinary sqlite3, through the store."""

from __future__ import annotations

import sqlite3
import zlib
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Final

from shoestring.core.errors import StorageError
from shoestring.store import schema
from shoestring.store.db import transact
from shoestring.store.opening import begin_generation
from shoestring.store.tasks import Loaded, due_after, load_delayed, load_ready
from tests.sim.ledger import StoredTask, read_tasks
from tests.store.power.life import NAME, Recording, digest

OK: Final = "ok"
DAMAGED: Final = "damaged"
UNBALANCED: Final = "books and rows disagree"
NO_PREFIX: Final = "not what any commit left"
LOST_DURABLE: Final = "a durable batch is lost"
LOST_SYNCED: Final = "a batch is lost that was synced"
UNREADABLE: Final = "a body or an item changed"


def judge(folder: Path, recording: Recording, cut: int) -> tuple[str, str]:
    """Return what is wrong with the files in `folder`, which a cut after `cut` operations left, and the details."""
    path = folder / NAME
    try:
        with closing(schema.open_database(path)) as conn:
            conn.execute("PRAGMA synchronous = OFF")  # these files are only looked at
            schema.check_whole(conn, path)  # after the recovery; a start may leave this for later
            for look in (_look_at_rows, lambda conn: _look_at_commits(conn, recording, cut), _recover):
                found = look(conn)
                if found is not None:
                    return found
    except (StorageError, sqlite3.DatabaseError) as error:
        return DAMAGED, str(error)
    return OK, ""


def digest_of(folder: Path) -> str:
    """Return the digest of what the store reads from the files in `folder`."""
    with closing(schema.open_database(folder / NAME)) as conn:
        return digest(conn)


def _look_at_rows(conn: sqlite3.Connection) -> tuple[str, str] | None:
    stored = read_tasks(conn)
    for what, booked, real in (*_pending(conn, stored), *_belongings(conn, stored)):
        if booked != real:
            return UNBALANCED, f"{what}: {booked} in the books, {real} in the rows"
    return None


def _pending(conn: sqlite3.Connection, stored: list[StoredTask]) -> list[tuple[str, object, object]]:
    pending: Counter[int] = Counter()
    delayed: Counter[int] = Counter()
    of_job: Counter[int] = Counter()
    for each in stored:
        if not each.is_void:
            pending[each.lane] += each.left
            if each.job is not None:
                of_job[each.job] += each.left
        delayed[each.lane] += each.place == "delayed"
    compared: list[tuple[str, object, object]] = []
    lanes = "SELECT id, accepted - completed - discarded - cancelled - expired - dropped, delayed FROM lanes"
    for lane, left, later in conn.execute(lanes).fetchall():
        compared.append((f"lane {lane}", left, pending.pop(lane, 0)))
        compared.append((f"delayed of lane {lane}", later, delayed.pop(lane, 0)))
    compared.append(("lanes without books", {}, dict(pending)))
    for job, left in conn.execute("SELECT id, accepted - done - failed - cancelled FROM jobs").fetchall():
        compared.append((f"job {job}", left, of_job.pop(job, 0)))
    compared.append(("chunks without job", {}, dict(of_job)))
    return compared


def _belongings(conn: sqlite3.Connection, stored: list[StoredTask]) -> list[tuple[str, object, object]]:
    ids = Counter(each.id for each in stored)
    chunks = {row[0] for row in conn.execute("SELECT id FROM chunks").fetchall()}
    progress = {row[0] for row in conn.execute("SELECT id FROM progress").fetchall()}
    uniques = set(conn.execute("SELECT key, id FROM uniques").fetchall())
    return [
        ("tasks in two places", [], [each for each, count in ids.items() if count > 1]),
        ("chunks", chunks, {each.id for each in stored if each.job is not None}),
        ("progress without chunk", set(), progress - chunks),
        ("unique keys", uniques, {(each.extra.unique, each.id) for each in stored if each.extra.unique is not None}),
    ]


def _look_at_commits(conn: sqlite3.Connection, recording: Recording, cut: int) -> tuple[str, str] | None:
    """Find the commit after which the file held just this: then all before it are in, and none after it."""
    commits = recording.commits
    now = digest(conn)
    safe = [place for place, each in enumerate(commits) if each.safe_at is not None and each.safe_at <= cut]
    begun = [place for place, each in enumerate(commits) if each.begun_at < cut]
    first, last = (safe[-1] if safe else 0), (begun[-1] if begun else 0)
    for place in range(last, -1, -1):
        if commits[place].digest == now:
            break
    else:
        return NO_PREFIX, f"commits {first} to {last} could be the last"
    if place >= first:
        return None
    lost = [each for each in safe if each > place]
    kind = LOST_DURABLE if any(commits[each].is_durable for each in lost) else LOST_SYNCED
    return kind, f"the last commit is {place}, up to {first} all should be there"


def _recover(conn: sqlite3.Connection) -> tuple[str, str] | None:
    """Begin a generation on it and load every task, as the daemon does."""
    opening = transact(conn, begin_generation, ())
    loaded = [load_ready(conn, lane.id, -1, 10_000) for lane in opening.lanes]
    loaded.append(load_delayed(conn, due_after(conn, (0, 0), 10_000)))
    wrong = [task_id for each in loaded for task_id in _changed(each)]
    rows = sum(len(each.rows) for each in loaded)
    stored: int = conn.execute("SELECT (SELECT count(*) FROM ready) + (SELECT count(*) FROM delayed)").fetchone()[0]
    if wrong or rows != stored:
        return UNREADABLE, f"tasks {wrong}; {rows} of {stored} rows were loaded"
    return None


def _changed(loaded: Loaded) -> list[int]:
    return [
        *(row.rank for row in loaded.rows if zlib.crc32(bytes(row.body)) != row.crc),
        *(chunk.id for chunk in loaded.chunks.values() if zlib.crc32(bytes(chunk.items)) != chunk.crc),
    ]
