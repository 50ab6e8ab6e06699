"""The figures of a scenario over all rounds: median, least and greatest, and ratios within a round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from shoestring.bench.record import Run
from shoestring.bench.setting import Scenario

Figure = Callable[[Run], float | None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Median of the rounds with the least and the greatest."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Iterable[float | None]) -> Spread | None:
        known = [value for value in values if value is not None]
        return cls(statistics.median(known), min(known), max(known)) if known else None


@dataclass(slots=True)
class Outcome:
    """A scenario and its runs, one a round; None where it failed."""

    scenario: Scenario
    runs: list[Run | None] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def spread(self, figure: Figure) -> Spread | None:
        return Spread.of(figure(run) for run in self.runs if run is not None)

    def ratio(self, limit: Outcome | None) -> Spread | None:
        """Return this rate as a part of the limit's in the same round."""
        if limit is None:
            return None
        pairs = zip(self.runs, limit.runs, strict=True)
        return Spread.of(run.rate / bound.rate for run, bound in pairs if run is not None and bound is not None)


def rate(run: Run) -> float | None:
    return run.rate


def cpu_us(run: Run) -> float | None:
    return run.cpu_us


def producer_cpu_us(run: Run) -> float | None:
    return run.producer_cpu_s / run.tasks * 1e6 if run.producer_cpu_s else None


def rss_peak_mb(run: Run) -> float | None:
    return run.rss_peak_kib / 1024


def pss_peak_mb(run: Run) -> float | None:
    return run.pss_peak_kib / 1024 if run.pss_peak_kib else None


def writes_per_1000(run: Run) -> float | None:
    """Write operations that carried data, what the page cache still held included."""
    return run.disk.settled.data_writes / run.tasks * 1000 if run.disk else None


def flushes_per_1000(run: Run) -> float | None:
    return run.disk.settled.flushes / run.tasks * 1000 if run.disk else None


def megabytes_per_1000(run: Run) -> float | None:
    return run.disk.settled.megabytes / run.tasks * 1000 if run.disk else None


def writes(run: Run) -> float | None:
    return float(run.disk.settled.data_writes) if run.disk else None


def writes_per_second(run: Run) -> float | None:
    return run.disk.settled.data_writes / run.seconds if run.disk else None


def others_cores(run: Run) -> float | None:
    return run.others_cores


def named(name: str) -> Figure:
    """Return the figure that only some scenarios have."""
    return lambda run: run.figures.get(name)


#: What every scenario has: key in JSON, heading, how it is read.
COMMON: tuple[tuple[str, str, Figure], ...] = (
    ("rate", "per second", rate),
    ("cpu_us", "CPU us", cpu_us),
    ("producer_cpu_us", "producer us", producer_cpu_us),
    ("rss_peak_mb", "RSS MB", rss_peak_mb),
    ("pss_peak_mb", "PSS MB", pss_peak_mb),
    ("writes_per_1000", "writes/1000", writes_per_1000),
    ("flushes_per_1000", "flushes/1000", flushes_per_1000),
    ("megabytes_per_1000", "MB/1000", megabytes_per_1000),
    ("others_cores", "others", others_cores),
)
#: Those of them that do not depend on the number of units.
UNITLESS = frozenset({"rss_peak_mb", "pss_peak_mb", "others_cores"})
