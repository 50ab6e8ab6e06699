"""Now follows the wall clock, but neither jumps nor stands still nor goes back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.clock import STEP_MS_MIN, SteadyWall

WALL_MS = 1_800_000_000_000
HOUR_MS = 3_600_000

#: (seconds that pass, milliseconds the wall clock is set by meanwhile)
INTERVALS = st.tuples(
    st.floats(0, 1e-3) | st.floats(0, 100_000),
    st.just(0) | st.integers(-10, 10) | st.integers(-(10**12), 10**12),
)


class Machine:
    """A wall clock that is set now and then, beside one that never is."""

    def __init__(self) -> None:
        self.wall_ms = float(WALL_MS)
        self.mono_s = 1_000.0
        self.steady = SteadyWall(WALL_MS, self.mono_s)

    def passes(self, seconds: float, set_by_ms: int = 0) -> int:
        self.mono_s += seconds
        self.wall_ms += seconds * 1_000 + set_by_ms
        return self.steady.read(int(self.wall_ms), self.mono_s)


@given(st.lists(INTERVALS, max_size=50))
def test_now_advances_by_half_to_one_and_a_half_of_the_time_that_passes(intervals: list[tuple[float, int]]) -> None:
    """Never back, never frozen, never everything at once, whatever is done to the clock."""
    machine = Machine()
    now_ms = WALL_MS
    for seconds, set_by_ms in intervals:
        later_ms = machine.passes(seconds, set_by_ms)
        assert seconds * 500 - 1.01 <= later_ms - now_ms <= seconds * 1_500 + 1.01
        assert later_ms >= now_ms
        now_ms = later_ms


@given(st.lists(st.floats(0, 1e-4) | st.floats(0, 100_000), max_size=50))
def test_an_undisturbed_clock_is_followed_to_the_millisecond(intervals: list[float]) -> None:
    """The steadying must cost nothing in precision where there is nothing to steady."""
    machine = Machine()
    for seconds in intervals:
        assert abs(machine.passes(seconds) - int(machine.wall_ms)) <= 1
    assert machine.steady.stepped_ms() == 0


@given(st.integers(-10 * HOUR_MS, 10 * HOUR_MS), st.integers(1, 100))
def test_a_step_is_absorbed_after_twice_its_length(set_by_ms: int, readings: int) -> None:
    """The queue must come back to the time people see, and not only approach it."""
    machine = Machine()
    now_ms = machine.passes(0.0, set_by_ms)
    for _ in range(readings):
        now_ms = machine.passes((2 * abs(set_by_ms) / 1_000 + 1) / readings)
    assert abs(now_ms - int(machine.wall_ms)) <= 1
    assert abs(machine.steady.ahead_ms()) <= 1


@pytest.mark.parametrize(("set_by_ms", "takes_s"), [(HOUR_MS, 400), (-HOUR_MS, 1_200), (0, 600)])
def test_a_delay_of_ten_minutes_takes_between_seven_and_twenty(set_by_ms: int, takes_s: int) -> None:
    """What the documentation promises for a delayed task when somebody sets the clock."""
    machine = Machine()
    due_at_ms = machine.passes(0.0) + 600_000
    assert machine.passes(takes_s - 1, set_by_ms) < due_at_ms
    assert machine.passes(1) >= due_at_ms


def test_readings_within_a_step_are_the_same_as_one_reading() -> None:
    """How often the clock is looked at must not change the time."""
    often, once = Machine(), Machine()
    often.passes(0.0, HOUR_MS)
    once.passes(0.0, HOUR_MS)
    for _ in range(1_000):
        often.passes(0.5)
    assert often.steady.ahead_ms() == pytest.approx(once.passes(500.0) - int(once.wall_ms), abs=1)


def test_a_step_is_told_once() -> None:
    """One line in the log, with how far and which way."""
    machine = Machine()
    machine.passes(10.0, HOUR_MS)
    machine.passes(10.0)
    assert machine.steady.stepped_ms() == HOUR_MS
    assert machine.steady.stepped_ms() == 0
    machine.passes(10.0, -HOUR_MS)
    assert machine.steady.stepped_ms() == -HOUR_MS


def test_what_ntp_does_all_day_is_no_step() -> None:
    """A line in the log for every correction would hide the ones that matter."""
    machine = Machine()
    for _ in range(10):
        machine.passes(1.0, STEP_MS_MIN - 1)
    assert machine.steady.stepped_ms() == 0


def test_a_monotonic_clock_that_goes_back_is_ignored() -> None:
    """It cannot, except on broken hypervisors; and then now must stand, not go back."""
    steady = SteadyWall(WALL_MS, 100.0)
    assert steady.read(WALL_MS + 10_000, 110.0) == WALL_MS + 10_000
    assert steady.read(WALL_MS + 11_000, 50.0) == WALL_MS + 10_000
    assert steady.read(WALL_MS + 12_000, 112.0) == WALL_MS + 12_000
