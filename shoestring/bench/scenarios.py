"""The list of scenarios, in the order they are shown.

Producers over the socket are coroutines of processes that each hold one connection, as a web app's requests are: ten
in two processes, a hundred in four.
"""

from __future__ import annotations

from shoestring.bench import inside, limits, outside
from shoestring.bench.setting import Scenario
from shoestring.core.model import Durability

LOOP, ROWS, ECHO, ECHOES = "limit-loop", "limit-rows", "limit-echo-1", "limit-echo-100"

_ALL = (
    Scenario(name=LOOP, title="bare uvloop loop, same coroutine", run=limits.bare_loop, tasks=500_000),
    Scenario(name=ROWS, title="plain executemany, same rows", run=limits.plain_rows, tasks=500_000),
    Scenario(name=ECHO, title="bare socket echo, 1 connection", run=limits.echo_one, tasks=20_000),
    Scenario(name=ECHOES, title="bare socket echo, 100 connections", run=limits.echo_hundred, tasks=100_000),
    Scenario(
        name="enqueue-one", title="enqueue one by one, in process", run=inside.one_relaxed, tasks=30_000, limit=ROWS
    ),
    Scenario(
        name="enqueue-one-volatile", title="enqueue one by one, volatile", run=inside.one_volatile, tasks=100_000,
        limit=ROWS,
    ),
    Scenario(
        name="enqueue-one-durable", title="enqueue one by one, durable", run=inside.one_durable, tasks=3_000, limit=ROWS
    ),
    Scenario(name="enqueue-bulk", title="enqueue in bulk, in process", run=inside.bulk, tasks=500_000, limit=ROWS),
    Scenario(
        name="socket-one", title="1 producer over the socket",
        run=outside.socket("one", producers=1, processes=1), tasks=20_000, limit=ECHO,
    ),
    Scenario(
        name="socket-one-volatile", title="1 producer over the socket, volatile",
        run=outside.socket("one", producers=1, processes=1, durability=Durability.VOLATILE), tasks=20_000, limit=ECHO,
    ),
    Scenario(
        name="socket-10", title="10 producers over the socket",
        run=outside.socket("one", producers=10, processes=2), tasks=100_000, limit=ECHOES,
    ),
    Scenario(
        name="socket-100", title="100 producers over the socket",
        run=outside.socket("one", producers=100, processes=4), tasks=200_000, limit=ECHOES,
    ),
    Scenario(
        name="socket-bulk-1", title="bulk over the socket, 1 producer",
        run=outside.socket("bulk", producers=1, processes=1), tasks=500_000, limit=ROWS,
    ),
    Scenario(
        name="socket-bulk-10", title="bulk over the socket, 10 producers",
        run=outside.socket("bulk", producers=10, processes=2), tasks=500_000, limit=ROWS,
    ),
    Scenario(
        name="socket-bulk-100", title="bulk over the socket, 100 producers",
        run=outside.socket("bulk", producers=100, processes=4), tasks=500_000, limit=ROWS,
    ),
    Scenario(name="drain", title="drain no-op tasks", run=inside.drain, tasks=300_000, limit=LOOP),
    Scenario(name="drain-chunks", title="drain chunks of 50", run=inside.drain_chunks, tasks=1_000_000, limit=LOOP),
    Scenario(name="job", title="a job streamed and run", run=outside.job, tasks=1_000_000, limit=LOOP),
    Scenario(name="day", title="2 million items a day", run=outside.day, tasks=1, timed=True),
    Scenario(name="delayed", title="100,000 delayed tasks", run=outside.delayed, tasks=100_000, limit=ROWS),
    Scenario(name="latency", title="enqueue to start, idle daemon", run=outside.latency, tasks=500, timed=True),
    Scenario(name="idle", title="an idle daemon", run=outside.idle, tasks=1, timed=True),
)  # fmt: skip

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
