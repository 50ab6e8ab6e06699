"""What it must cost: the promises that are measured here, and whether this run kept them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from shoestring.bench.outcome import (
    Figure,
    Outcome,
    Spread,
    named,
    rate,
    writes,
    writes_per_1000,
    writes_per_second,
)


@dataclass(frozen=True, slots=True)
class Promise:
    """One figure of one scenario and the bound it keeps: `at_least` or `at_most`, never both."""

    scenario: str
    what: str
    figure: Figure
    at_least: float | None = None
    at_most: float | None = None

    def kept(self, found: Spread) -> bool:
        if self.at_least is not None:
            return found.median >= self.at_least
        assert self.at_most is not None
        return found.median <= self.at_most

    @property
    def bound(self) -> str:
        return f">= {self.at_least:,g}" if self.at_least is not None else f"<= {self.at_most:,g}"


@dataclass(frozen=True, slots=True)
class Verdict:
    promise: Promise
    found: Spread | None  # None: not measured, for want of a counter or because the scenario failed

    @property
    def word(self) -> str:
        if self.found is None:
            return "not measured"
        return "reached" if self.promise.kept(self.found) else "NOT reached"


PROMISES = (
    Promise("idle", "idle daemon: writes to the disk in the window", writes, at_most=0),
    Promise("idle", "idle daemon: voluntary context switches a second", named("switches_per_s"), at_most=2),
    Promise("idle", "idle daemon: CPU ms a second", named("cpu_ms_per_s"), at_most=1),
    Promise("idle", "idle daemon: PSS MB", named("pss_mb"), at_most=30),
    Promise("day", "2 M items a day in chunks of 50: writes a second", writes_per_second, at_most=2),
    Promise("drain", "unchunked no-op tasks drained, per second", rate, at_least=60_000),
    Promise("drain", "the same: writes per 1,000 tasks", writes_per_1000, at_most=1),
    Promise("job", "a streamed job: PSS MB the daemon grew", named("pss_growth_mb"), at_most=20),
    Promise("drain-chunks", "chunks of 50 drained: writes per 1,000 items", writes_per_1000, at_most=0.1),
    Promise("enqueue-bulk", "bulk enqueue in process, per second", rate, at_least=200_000),
    Promise("socket-bulk-1", "bulk enqueue over the socket, per second", rate, at_least=150_000),
    Promise("enqueue-one", "one producer in process, relaxed, per second", rate, at_least=7_000),
    Promise("enqueue-one-volatile", "one producer in process, volatile, per second", rate, at_least=45_000),
    Promise("socket-one", "one producer over the socket, relaxed, per second", rate, at_least=7_000),
    Promise("socket-100", "100 producers, relaxed, per second", rate, at_least=60_000),
    Promise("delayed", "delayed tasks stored: PSS MB grown", named("pss_growth_mb"), at_most=16),
    Promise("delayed", "start-up on them, seconds", named("start_s"), at_most=2),
    Promise("latency", "enqueue to start, idle daemon, other process: p99 ms", named("p99_ms"), at_most=1),
)


def verdicts(outcomes: Mapping[str, Outcome]) -> list[Verdict]:
    """Hold the promises of the scenarios that were run against what they came to."""
    return [
        Verdict(promise, outcomes[promise.scenario].spread(promise.figure))
        for promise in PROMISES
        if promise.scenario in outcomes
    ]
