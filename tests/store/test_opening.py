"""What a new generation finds of the last one."""

from __future__ import annotations

import sqlite3

from shoestring.core.model import rank_of
from shoestring.store.batch import Batch
from shoestring.store.db import transact
from shoestring.store.opening import begin_generation
from shoestring.store.tasks import load_ready
from tests.store.conftest import commit, ready


def test_a_task_dies_once_at_a_death_however_often_it_ran(conn: sqlite3.Connection) -> None:
    """An abandoned call goes on beside the next attempt: both stand in the register, and it ran alone too early."""
    commit(conn, Batch(accepted_ready=[ready(1)]))
    died = transact(conn, begin_generation, ()).generation

    opening = transact(conn, begin_generation, (died, [(1, rank_of(0, 1)), (1, rank_of(0, 1))]))

    assert opening.crashed == 1
    (row,) = load_ready(conn, 1, -1, 10).rows
    assert row.extra is not None
    assert row.extra.crashes == 1
