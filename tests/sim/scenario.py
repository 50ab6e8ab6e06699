"""Draws what happens in a run: the machine, its faults, the app's temper and how each generation ends."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

from shoestring.config import Config, LimitsConfig, RunConfig, StoreConfig
from tests.sim.disk import Faults
from tests.sim.script import Temper
from tests.sim.stage import QUEUES


class Ending(enum.Enum):
    DRAIN = "drain"  # everything comes to its end; the last generation
    STOP = "stop"  # quiet, drain, release, flush, close
    BURST = "burst"  # stops when nothing is left
    KILL = "kill"  # at some moment
    KILL_AT_COMMIT = "kill at commit"
    POWER = "power"  # is cut at some moment
    BREAK = "break"  # the disk fails in a way that ends the daemon


@dataclass(frozen=True, slots=True)
class Life:
    """One generation as it is planned."""

    ending: Ending
    active_s: float
    actions: int
    slowness: float
    small_at_once: bool  # small batches are written on the loop, as production does; else the thread does everything
    faults: Faults
    steps_ms: tuple[tuple[float, int], ...]  # (when, by how much the wall clock is set)
    without: tuple[str, ...]
    grace_s: float
    hurries_s: float | None  # somebody loses patience with the stop after this


@dataclass(frozen=True, slots=True)
class Scenario:
    config: Config
    temper: Temper
    users: int
    lives: tuple[Life, ...]
    calm: bool  # nothing is slow and nothing fails: what is due is punctual
    handlers: tuple[str, ...]
    poison: bool


_HANDLERS: Final = (
    "plain", "gated", "timed", "planned", "careless", "careful", "narrow", "once", "paced", "charged", "fickle",
)  # fmt: skip


def draw(seed: int, folder: Path) -> Scenario:
    """Draw the scenario of a seed."""
    rng = Random(f"scenario {seed}")
    calm = rng.random() < 0.1
    config = Config(
        database=folder / "sim.db",
        runtime_dir=folder,
        run=RunConfig(
            slots=20 if calm else rng.choice((2, 3, 5, 12)),
            grace_s=2.0,
            abandon_after_s=1.0,
            prefetch=rng.choice((1, 2, 3, 6, 12, 2_000)),
            timer_heap=rng.choice((1, 2, 4, 9, 1_000)),
        ),
        store=StoreConfig(
            checkpoint_pages=rng.choice((10, 2_000)),
            discarded_max=rng.choice((100_000, 100_000)),
            reserve_mib=1,
            volatile_window_ms=rng.choice((5, 200)),
        ),
        limits=LimitsConfig(payload_bytes_max=400),
        queues=dict(QUEUES),
    )
    temper = Temper(
        trouble=0.0 if calm else rng.choice((0.1, 0.3, 0.6)),
        quick=rng.choice((0.1, 0.5, 0.9)),
        typical_s=0.001 if calm else rng.choice((0.005, 0.05, 0.4)),
        stubborn=rng.choice((0.0, 0.05, 0.3)),
    )
    count = 1 if calm else rng.choice((1, 2, 3, 4))
    lives = tuple(_draw_life(rng, calm=calm, last=number == count - 1) for number in range(count))
    handlers = _HANDLERS if rng.random() < 0.5 else tuple(rng.sample(_HANDLERS, 3))
    if calm:
        handlers = ("plain", "planned", "careless", "timed")
    return Scenario(
        config=config, temper=temper, users=rng.choice((1, 2, 4)), lives=lives, calm=calm, handlers=handlers,
        poison=not calm and rng.random() < 0.1,
    )  # fmt: skip


def _draw_life(rng: Random, *, calm: bool, last: bool) -> Life:
    ending = Ending.DRAIN
    if not last:
        ending = rng.choice(
            (
                Ending.STOP, Ending.STOP, Ending.KILL, Ending.KILL_AT_COMMIT, Ending.KILL_AT_COMMIT, Ending.BREAK,
                Ending.BURST, Ending.POWER,
            )
        )  # fmt: skip
    active_s = rng.uniform(2, 12)
    faults = Faults()
    steps: list[tuple[float, int]] = []
    if not calm:
        if rng.random() < 0.25:
            begin = rng.uniform(0, active_s)
            faults.full.append((begin, begin + rng.choice((0.3, 3.0))))
            faults.ballast = rng.random() < 0.5
        if rng.random() < 0.1:
            begin = rng.uniform(0, active_s)
            faults.low.append((begin, begin + 2.0))
        if rng.random() < 0.25:
            steps.append((rng.uniform(0, active_s), rng.choice((-60_000, -1_500, 1_500, 3_600_000))))
    write = rng.randrange(4, 60)
    if ending is Ending.KILL_AT_COMMIT:
        if rng.random() < 0.5:
            faults.kill_before_commit = write
        else:
            faults.kill_after_commit = write
    elif ending is Ending.BREAK:
        if rng.random() < 0.5:
            faults.busy_at_write = write
        else:
            faults.fail_at_sync = rng.randrange(2, 12)
    return Life(
        ending=ending,
        active_s=active_s,
        actions=rng.randrange(3, 25),
        slowness=0.1 if calm else rng.choice((0.1, 1.0, 5.0)),
        small_at_once=rng.random() < 0.7,
        faults=faults,
        steps_ms=tuple(steps),
        without=("fickle",) if not last and rng.random() < 0.3 else (),
        grace_s=rng.choice((0.0, 0.5, 2.0)),
        hurries_s=rng.choice((None, None, None, 0.1)),
    )
