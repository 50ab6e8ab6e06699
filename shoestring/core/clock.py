"""Time as the queue sees it: instants that follow the wall clock, but never jump.

Stored instants are those of the wall clock, because they outlive the machine's uptime. But the wall clock is set:
by NTP after the start, by hand, by a hypervisor that resumes a machine. If the queue followed at once, an hour forward
would make everything due in that hour due at the same moment, and an hour back would freeze it for an hour.

So the queue's now advances with the monotonic clock and drifts towards the wall clock, gaining or losing at most half
of the time that passes: a delay of ten minutes takes between 6 min 40 s and 20 min, whatever is done to the clock, and
a step of one hour is absorbed after two. A start takes the wall clock as it finds it.
"""

from __future__ import annotations

from typing import Final, Protocol

#: A smaller difference between two readings is no step but NTP's slewing, or a machine too busy to read both clocks
#: at once.
STEP_MS_MIN: Final = 5_000


class Clock(Protocol):
    """Where the time comes from: the machine, or a simulation."""

    def now_ms(self) -> int:
        """Return the instant to store and compare, in milliseconds since 1970; never less than before."""

    def mono(self) -> float:
        """Return seconds since some moment, for differences."""


class Dice(Protocol):
    """Where chance comes from: the machine, or a seed."""

    def random(self) -> float:
        """Return a number from 0 up to, but not including, 1."""


class SteadyWall:
    """Follows the wall clock without its jumps; both clocks' readings are handed in.

    The monotonic clock ought to be one that runs on while the machine sleeps (`CLOCK_BOOTTIME`), or every sleep looks
    like a step.

    >>> steady = SteadyWall(wall_ms=1_000_000, mono_s=0.0)
    >>> steady.read(wall_ms=1_010_000, mono_s=10.0)
    1010000
    >>> steady.read(wall_ms=4_620_000, mono_s=20.0), steady.stepped_ms()
    (1025000, 3600000)
    >>> steady.read(wall_ms=1_030_000, mono_s=30.0), steady.stepped_ms()
    (1030000, -3600000)
    """

    __slots__ = ("_mono_us", "_now_us", "_stepped_ms", "_wall_ms")

    def __init__(self, wall_ms: int, mono_s: float) -> None:
        # Whole microseconds: a sum of millions of tiny floats would drift by itself.
        self._now_us = wall_ms * 1_000
        self._mono_us = round(mono_s * 1_000_000)
        self._wall_ms = wall_ms
        self._stepped_ms = 0

    def read(self, wall_ms: int, mono_s: float) -> int:
        """Return now in milliseconds, given what both clocks show."""
        mono_us = round(mono_s * 1_000_000)
        passed_us = mono_us - self._mono_us
        if passed_us > 0:
            self._mono_us = mono_us
            gap_us = wall_ms * 1_000 - self._now_us - passed_us
            most_us = passed_us // 2
            self._now_us += passed_us + max(-most_us, min(gap_us, most_us))
        else:
            passed_us = 0
        step_ms = wall_ms - self._wall_ms - passed_us // 1_000
        if step_ms >= STEP_MS_MIN or step_ms <= -STEP_MS_MIN:
            self._stepped_ms += step_ms
        self._wall_ms = wall_ms
        return self._now_us // 1_000

    def stepped_ms(self) -> int:
        """Return by how much the wall clock was set since this was last asked, for the log; 0 if it was not."""
        stepped_ms, self._stepped_ms = self._stepped_ms, 0
        return stepped_ms

    def ahead_ms(self) -> int:
        """Return how far now is ahead of the wall clock as last read; negative if behind."""
        return self._now_us // 1_000 - self._wall_ms
