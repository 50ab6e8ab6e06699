"""What a scenario is, and what it is given to run in."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from shoestring.bench.device import Device
from shoestring.bench.record import Run

#: Under this many units a scenario measures its own start.
TASKS_MIN = 200


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """The order to a child process: one scenario, once. Travels as JSON."""

    scenario: str
    folder: str  # empty, of this run alone, on the device
    device_folder: str
    device_number: str | None
    dedicated: bool
    tasks: int
    window_s: float = 30.0  # how long a scenario about time looks
    settle_s: float = 3.0  # after its start a daemon still does what it does once

    @property
    def device(self) -> Device:
        return Device(Path(self.device_folder), self.device_number, self.dedicated)

    def watch(self, pid: int) -> None:
        """Have the memory of `pid` sampled from now on, by the process that started this one."""
        send({"watch": pid})


def send(message: dict[str, object]) -> None:
    """Write one message to the process that started this one; stdout carries nothing else."""
    sys.stdout.write(json.dumps(message) + "\n")
    sys.stdout.flush()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One measurement."""

    name: str
    title: str
    run: Callable[[Setting], Awaitable[Run]]
    tasks: int  # units of work in a full run
    limit: str | None = None  # the scenario that bounds this one from above
    timed: bool = False  # time decides: `tasks` is not scaled, and figures a unit say nothing

    def size(self, *, scale: float, quick: bool) -> int:
        if self.timed:
            return self.tasks
        return max(min(TASKS_MIN, self.tasks), int(self.tasks * scale * (0.1 if quick else 1.0)))
