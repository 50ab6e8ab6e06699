"""Retries: how long, how often, after what."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.errors import UsageError
from shoestring.core.retry import Duration, RetryPolicy, duration_s

DRAWS = st.floats(0, 1, exclude_max=True)
ATTEMPTS = st.integers(1, 100_000)
POLICIES = st.builds(
    RetryPolicy,
    max_attempts=st.integers(1, 1_000_000),
    base=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    cap=st.floats(0, 1e6) | st.timedeltas(timedelta(0), timedelta(days=100)),
    jitter=st.booleans(),
)


def exact(**changes: Any) -> RetryPolicy:
    return RetryPolicy(jitter=False, **changes)


@given(POLICIES, ATTEMPTS, DRAWS)
def test_no_delay_is_over_the_cap_or_below_nothing(policy: RetryPolicy, attempt: int, draw: float) -> None:
    """A thousandth attempt must not overflow into an error, a negative delay or the next century."""
    assert 0 <= policy.delay_ms(attempt, draw) <= duration_s(policy.cap) * 1_000


@given(POLICIES, st.lists(ATTEMPTS, min_size=2, max_size=2).map(sorted), DRAWS)
def test_delays_never_shrink_from_one_attempt_to_the_next(
    policy: RetryPolicy, attempts: list[int], draw: float
) -> None:
    """Back-off that falls back would hammer what is already down."""
    earlier, later = attempts
    assert policy.delay_ms(earlier, draw) <= policy.delay_ms(later, draw)


@given(ATTEMPTS, DRAWS, st.floats(0, 1e6), st.floats(1, 100))
def test_jitter_spreads_over_the_whole_delay(attempt: int, draw: float, base: float, factor: float) -> None:
    """Full jitter: evenly from nothing to what the delay would be without it."""
    whole = exact(base=base, factor=factor).delay_ms(attempt, draw)
    drawn = RetryPolicy(base=base, factor=factor).delay_ms(attempt, draw)
    assert drawn <= whole
    assert abs(drawn - whole * draw) <= 1
    assert RetryPolicy(base=base, factor=factor).delay_ms(attempt, 0.0) == 0


def test_delays_double_up_to_the_cap() -> None:
    """The defaults, as the documentation tells them."""
    policy = exact(base=2.0, cap=timedelta(seconds=20), max_attempts=10)
    assert [policy.delay_ms(attempt, 0.9) for attempt in range(1, 7)] == [2_000, 4_000, 8_000, 16_000, 20_000, 20_000]


def test_no_base_means_no_delay_for_ever() -> None:
    """`base=0` asks for an immediate retry; the overflow of a large attempt must not turn it into the cap."""
    assert [exact(base=0.0).delay_ms(attempt, 0.5) for attempt in (1, 2, 5_000)] == [0, 0, 0]


@given(st.integers(1, 6), DRAWS)
def test_a_schedule_is_followed_to_the_letter(attempt: int, draw: float) -> None:
    """Who writes `1m, 1h, 1d, 3d` promised those to somebody; dice have no place there."""
    policy = RetryPolicy(schedule=("1m", 3_600.0, timedelta(days=1), "3d"), jitter=True)
    expected = [60_000, 3_600_000, 86_400_000, 259_200_000]
    decided = [policy.decide(each, ValueError(), draw) for each in range(1, 7)]
    assert decided == [*expected, None, None]


def test_a_schedule_sets_the_attempts() -> None:
    """Four delays are five attempts, whatever else is said."""
    assert RetryPolicy(schedule=("1m", "1h", "1d", "3d"), max_attempts=2).max_attempts == 5


@given(POLICIES, ATTEMPTS, DRAWS)
def test_attempts_end_at_the_maximum(policy: RetryPolicy, attempt: int, draw: float) -> None:
    """The last attempt's failure discards the task; every one before it gets a delay."""
    assert (policy.decide(attempt, ValueError(), draw) is None) == (attempt >= policy.max_attempts)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (ConnectionResetError(), True),
        (TimeoutError(), True),
        (FileNotFoundError(), False),
        (ValueError(), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_choose_whether_to_try_again(error: BaseException, again: bool) -> None:
    """`give_up_on` wins over `on`; what is in neither is not tried again."""
    policy = RetryPolicy(on=(OSError,), give_up_on=(FileNotFoundError,))
    assert policy.retries(error) is again
    assert (policy.decide(1, error, 0.5) is not None) is again


def test_by_default_every_ordinary_error_is_tried_again() -> None:
    """Anything but what ends a process or a coroutine."""
    assert RetryPolicy().retries(Exception())
    assert not RetryPolicy().retries(SystemExit())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"max_attempts": 0}, "max_attempts is 0; it counts the first attempt"),
        ({"max_attempts": 2.5}, "max_attempts is 2.5; give a whole number"),
        ({"max_attempts": True}, "max_attempts is True; give a whole number"),
        ({"base": -1}, "base is -1; it must be between 0 and ten years"),
        ({"base": "soon"}, "base is 'soon', which is no length of time; write '30s'"),
        ({"factor": 0.5}, "factor is 0.5; 1 keeps the delay the same"),
        ({"factor": float("nan")}, "factor is nan"),
        ({"cap": float("inf")}, "cap is inf; it must be between 0 and ten years"),
        ({"cap": timedelta(days=4_000)}, "cap is datetime"),
        ({"schedule": ()}, "give a tuple of delays"),
        ({"schedule": "1m"}, "give a tuple of delays"),
        ({"schedule": ("1m", "1 month")}, "schedule is '1 month', which is no length of time"),
        ({"schedule": (None,)}, "schedule is None; give seconds, a timedelta, or text"),
        ({"on": ValueError}, "on is <class 'ValueError'>; give a tuple of exception classes"),
        ({"give_up_on": ("ValueError",)}, "give_up_on is ('ValueError',); give a tuple of exception classes"),
    ],
)
def test_a_policy_that_cannot_be_meant_is_refused_with_the_remedy(changes: dict[str, Any], words: str) -> None:
    """It would otherwise be found at the first failure, at night."""
    with pytest.raises(UsageError) as caught:
        RetryPolicy(**changes)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("250ms", 0.25),
        ("30s", 30),
        ("1.5m", 90),
        (" 2 h ", 7_200),
        ("3d", 259_200),
        ("1w", 604_800),
        (0, 0),
        (1.5, 1.5),
    ],
)
def test_lengths_of_time_are_read_as_people_write_them(written: Duration, seconds: float) -> None:
    """Seconds, timedeltas and short text, everywhere the same."""
    assert duration_s(written) == pytest.approx(seconds)


def test_policies_with_the_same_settings_are_equal() -> None:
    """A registry compares what is declared twice."""
    assert RetryPolicy(cap=60.0) == RetryPolicy(cap=60.0)
    assert RetryPolicy(cap=60.0) != RetryPolicy(cap=61.0)
    assert "_cap_ms" not in repr(RetryPolicy())
