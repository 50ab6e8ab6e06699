"""The list of scenarios, in the order they are shown."""

from __future__ import annotations

from shoestring.bench import limits
from shoestring.bench.setting import Scenario

_ALL = (
    Scenario(name="limit-loop", title="bare uvloop loop, same coroutine", run=limits.bare_loop, tasks=500_000),
    Scenario(name="limit-rows", title="plain executemany, same rows", run=limits.plain_rows, tasks=500_000),
    Scenario(name="limit-echo-1", title="bare socket echo, 1 connection", run=limits.echo_one, tasks=20_000),
    Scenario(name="limit-echo-100", title="bare socket echo, 100 connections", run=limits.echo_hundred, tasks=100_000),
)

SCENARIOS = {scenario.name: scenario for scenario in _ALL}
