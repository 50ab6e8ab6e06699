"""Who is compared, and how each is set up."""

from __future__ import annotations

from tests.bench.peers.peer import Peer

_PACKAGE = "tests.bench.peers"
_TASKIQ = ("--workers", "1", "--max-async-tasks", "100", "--log-level", "ERROR")

PEERS = (
    Peer(
        name="shoestring",
        settings="its daemon, relaxed, time limits, retries and limits set",
        module="shoestring_daemon",
        needs=("shoestring",),
        broker="none",
        worker=("-m", f"{_PACKAGE}.shoestring_daemon", "work"),
        tasks=100_000,
    ),
    Peer(
        name="huey",
        settings="SQLite, its defaults (synchronous=FULL), 16 threads",
        module="huey_sqlite",
        needs=("huey",),
        broker="none",
        worker=("-m", f"{_PACKAGE}.huey_sqlite", "work"),
        tasks=4_000,
        bulk=False,
    ),
    Peer(
        name="huey-nofsync",
        settings="SQLite, fsync off, 16 threads",
        module="huey_sqlite",
        needs=("huey",),
        broker="none",
        worker=("-m", f"{_PACKAGE}.huey_sqlite", "work"),
        tasks=20_000,
        bulk=False,
        environment=(("PEERS_HUEY_FSYNC_OFF", "1"),),
    ),
    Peer(
        name="saq",
        settings="Redis, 100 coroutines",
        module="saq_redis",
        needs=("saq", "redis"),
        broker="redis",
        worker=("-m", f"{_PACKAGE}.saq_redis", "work"),
        tasks=8_000,
        bulk=False,
    ),
    Peer(
        name="dramatiq",
        settings="Redis, 2 processes x 8 threads",
        module="dramatiq_redis",
        needs=("dramatiq", "redis"),
        broker="redis",
        worker=("-m", "dramatiq", f"{_PACKAGE}.dramatiq_redis", "-p", "2", "-t", "8"),
        tasks=10_000,
        bulk=False,
    ),
    Peer(
        name="taskiq",
        settings="Redis stream, 1 process, 100 coroutines",
        module="taskiq_stream",
        needs=("taskiq", "taskiq_redis"),
        broker="redis",
        worker=("-m", "taskiq", "worker", f"{_PACKAGE}.taskiq_stream:broker", *_TASKIQ),
        tasks=10_000,
        bulk=False,
    ),
    Peer(
        name="pgqueuer",
        settings="PostgreSQL defaults, batches of 50, 100 at once",
        module="pgqueuer_postgres",
        needs=("pgqueuer", "asyncpg"),
        broker="postgres",
        worker=("-m", f"{_PACKAGE}.pgqueuer_postgres", "work"),
        tasks=10_000,
    ),
)
