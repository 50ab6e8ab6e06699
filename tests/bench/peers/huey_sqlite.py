"""huey on SQLite: defaults (WAL, synchronous=FULL) and with fsync off; 16 worker threads."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

from huey import SqliteHuey

from tests.bench.peers import tally
from tests.bench.peers.peer import nothing, produce, where

FSYNC_OFF = "PEERS_HUEY_FSYNC_OFF"

_options = {"fsync": False} if FSYNC_OFF in os.environ else {}
huey = SqliteHuey("bench", filename=str(Path(where(), "huey.db")), results=False, **_options)


def noop(n: int) -> None:
    tally.count()


task = huey.task()(noop)


async def one(_: None, number: int) -> None:
    for n in range(number):
        task(n)  # the only interface it has is synchronous


if __name__ == "__main__":
    if sys.argv[1] == "work":
        logging.disable(logging.CRITICAL)
        huey.create_consumer(workers=16, worker_type="thread").run()
    else:
        produce(nothing, one)
