"""The token bucket: never over capacity, and no second of time counted twice."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.bucket import Bucket
from shoestring.core.errors import UsageError

START_MS = 1_800_000_000_000
YEAR_MS = 365 * 86_400_000


def within(capacity: float) -> st.SearchStrategy[float]:
    return st.floats(0, capacity) | st.just(capacity)


LIMITS = st.tuples(st.floats(0.5, 1e6), st.floats(1e-3, 1e6))
#: Steps of the clock between two requests, in milliseconds, back and forth.
STEPS = st.integers(-5_000, 5_000) | st.integers(0, 3) | st.integers(-YEAR_MS, YEAR_MS)


@st.composite
def histories(draw: st.DrawFn, steps: st.SearchStrategy[int] = STEPS) -> tuple[Bucket, list[tuple[int, float]]]:
    """A bucket and requests at instants that need not be in order."""
    capacity, rate = draw(LIMITS)
    requests = draw(st.lists(st.tuples(steps, within(capacity)), max_size=40))
    return Bucket.full(capacity=capacity, rate=rate, now_ms=START_MS), requests


class Model:
    """A bucket in exact fractions that remembers every instant it has been paid for."""

    def __init__(self, bucket: Bucket) -> None:
        self.tokens, self.capacity, self.rate = map(Fraction, (bucket.tokens, bucket.capacity, bucket.rate))
        self.paid_until_ms = bucket.updated_at_ms

    def arrive(self, now_ms: int) -> None:
        if now_ms > self.paid_until_ms:
            self.tokens = min(self.capacity, self.tokens + self.rate * (now_ms - self.paid_until_ms) / 1_000)
            self.paid_until_ms = now_ms


@given(histories(st.integers(0, 5_000)))
def test_it_agrees_with_exact_arithmetic(history: tuple[Bucket, list[tuple[int, float]]]) -> None:
    """Thousands of small refills must come to the same as one."""
    bucket, requests = history
    model, now_ms = Model(bucket), START_MS
    for step_ms, n in requests:
        now_ms += step_ms
        model.arrive(now_ms)
        bucket, granted, _ = bucket.take(n, now_ms)
        if granted:
            model.tokens -= Fraction(n)
        assert float(model.tokens) == pytest.approx(bucket.tokens, rel=1e-9, abs=1e-6)


@given(histories())
def test_it_never_holds_more_than_its_capacity_or_less_than_nothing(
    history: tuple[Bucket, list[tuple[int, float]]],
) -> None:
    """Whatever the clock does, a user's burst has an upper bound."""
    bucket, requests = history
    now_ms = START_MS
    for step_ms, n in requests:
        now_ms += step_ms
        bucket, _, _ = bucket.take(n, now_ms)
        assert 0 <= bucket.tokens <= bucket.capacity


@given(histories())
def test_a_step_back_mints_nothing(history: tuple[Bucket, list[tuple[int, float]]]) -> None:
    """A clock set back must not be a gift."""
    bucket, requests = history
    now_ms = START_MS
    for step_ms, n in requests:
        now_ms += step_ms
        before, latest_ms = bucket, bucket.updated_at_ms
        bucket, granted, _ = bucket.take(n, now_ms)
        if now_ms <= latest_ms:
            assert bucket.tokens == before.tokens - (n if granted else 0)


@given(histories())
def test_no_time_is_paid_for_twice(history: tuple[Bucket, list[tuple[int, float]]]) -> None:
    """While the clock swings by less than a refill takes, all that was ever granted was there or came in since."""
    bucket, requests = history
    swing_ms = max(1, int(bucket.capacity / bucket.rate * 1_000))
    first, now_ms, latest_ms, granted_in_all = bucket, START_MS, START_MS, Fraction(0)
    for step_ms, n in requests:
        now_ms = max(now_ms + step_ms, latest_ms - swing_ms)
        latest_ms = max(latest_ms, now_ms)
        bucket, granted, _ = bucket.take(n, now_ms)
        if granted:
            granted_in_all += Fraction(n)
        came_in = Fraction(first.rate) * (latest_ms - START_MS) / 1_000
        assert granted_in_all <= (Fraction(first.tokens) + came_in) * (1 + Fraction(1, 10**9)) + Fraction(1, 10**6)


@given(histories())
def test_a_step_forward_mints_at_most_one_bucket(history: tuple[Bucket, list[tuple[int, float]]]) -> None:
    """However the clock is thrown about, each step is worth one burst at most."""
    bucket, requests = history
    now_ms = START_MS
    for step_ms, n in requests:
        now_ms += step_ms
        before = bucket
        bucket, granted, _ = bucket.take(n, now_ms)
        minted = bucket.tokens - before.tokens + (n if granted else 0)
        assert minted <= bucket.capacity + 1e-9 * bucket.capacity


@given(LIMITS, st.integers(1, 100 * YEAR_MS))
def test_a_clock_that_was_far_ahead_freezes_nobody(limit: tuple[float, float], ahead_ms: int) -> None:
    """A board that starts in 2036 and is set right must not hold its users until 2036."""
    capacity, rate = limit
    stored = Bucket(0.0, capacity, rate, START_MS + ahead_ms).refilled(START_MS)
    refill_ms = capacity / rate * 1_000
    assert stored.tokens == 0.0
    assert stored.updated_at_ms <= START_MS + min(ahead_ms, refill_ms + 1)
    _, granted, _ = stored.take(capacity, START_MS + 2 * int(refill_ms) + 4)
    assert granted


@given(LIMITS, st.data())
def test_what_is_refused_is_granted_at_the_instant_that_was_told(
    limit: tuple[float, float], data: st.DataObject
) -> None:
    """A lane is held until exactly then: too early would wake it in vain, for ever in the worst case."""
    capacity, rate = limit[0], max(limit[1], 0.01)  # slower ones would run into the ten years below
    bucket = Bucket(data.draw(within(capacity)), capacity, rate, START_MS)
    n = data.draw(within(capacity))
    now_ms = START_MS + data.draw(st.integers(-10_000, 10_000))
    bucket, granted, ready_at_ms = bucket.take(n, now_ms)
    if granted:
        assert ready_at_ms == now_ms
    else:
        assert ready_at_ms > now_ms
        assert bucket.ready_at_ms(n, now_ms) == ready_at_ms
        assert bucket.take(n, ready_at_ms)[1]
        # Rounding may cost a millisecond, not two.
        assert ready_at_ms - 2 <= now_ms or not bucket.take(n, ready_at_ms - 2)[1]


@given(histories(st.integers(0, 5_000)))
def test_what_runs_on_credit_is_paid_for(history: tuple[Bucket, list[tuple[int, float]]]) -> None:
    """A chunk of 50 starts with one token there; over time no more may run than came in."""
    bucket, requests = history
    first, now_ms, spent = bucket, START_MS, Fraction(0)
    for step_ms, n in requests:
        now_ms += step_ms
        if bucket.ready_at_ms(min(1, bucket.capacity), now_ms) == now_ms:
            bucket = bucket.spend(n, now_ms)
            spent += Fraction(n)
        assert 0 <= bucket.tokens <= bucket.capacity
        came_in = Fraction(first.rate) * (now_ms - START_MS) / 1_000
        on_credit = Fraction(first.capacity)
        assert spent <= (Fraction(first.tokens) + came_in + on_credit) * (1 + Fraction(1, 10**9))


@given(LIMITS, st.floats(0, 1), st.floats(0, 1))
def test_a_debt_is_paid_off_before_anything_comes_in(limit: tuple[float, float], held: float, spent: float) -> None:
    """Spending what is there is taking it; spending more delays the next token by as long as the rest takes."""
    capacity, rate = limit
    bucket = Bucket(held * capacity, capacity, rate, START_MS)
    n = spent * capacity
    after = bucket.spend(n, START_MS)
    if n <= bucket.tokens:
        assert (after, True, START_MS) == bucket.take(n, START_MS)
    else:
        ten_years_ms = 3_650 * 86_400_000  # no debt is said to last longer
        paid_at_ms = START_MS + min((n - bucket.tokens) / rate * 1_000, ten_years_ms)
        assert after.tokens == 0.0
        assert paid_at_ms <= after.updated_at_ms + 1e-3 <= paid_at_ms + 1.002


def test_more_than_the_capacity_is_an_error_and_not_a_wait() -> None:
    """It would wait for ever."""
    bucket = Bucket.full(capacity=10, rate=1, now_ms=0)
    with pytest.raises(UsageError, match="11 tokens are wanted at once of a bucket that holds 10: no wait"):
        bucket.take(11, 0)


def test_a_wait_of_ages_is_cut_to_ten_years() -> None:
    """An instant must fit where instants are stored."""
    bucket = Bucket(0.0, 1e12, 1e-9, START_MS)
    assert bucket.take(1e12, START_MS)[2] == START_MS + 10 * YEAR_MS


def test_waiting_for_more_than_fits_is_waiting_until_it_is_full() -> None:
    """`charge=run` asks for a chunk of 50 of a bucket of 10: it runs when the bucket is full."""
    assert Bucket(0.0, 10, 10, START_MS).ready_at_ms(50, START_MS) == START_MS + 1_000
    assert Bucket(10.0, 10, 10, START_MS).ready_at_ms(50, START_MS) == START_MS


def test_the_last_token_is_there_to_the_millisecond() -> None:
    """15 calls in 15 minutes: one a minute once the burst is spent."""
    bucket = Bucket.full(capacity=15, rate=15 / 900, now_ms=START_MS)
    for _ in range(15):
        bucket, granted, _ = bucket.take(1, START_MS)
        assert granted
    bucket, granted, ready_at_ms = bucket.take(1, START_MS)
    assert (granted, ready_at_ms) == (False, START_MS + 60_000)
    assert not bucket.take(1, START_MS + 59_999)[1]
    assert bucket.take(1, START_MS + 60_000)[1]


@given(LIMITS, LIMITS, st.integers(0, 10_000))
def test_another_limit_keeps_what_is_there(old: tuple[float, float], new: tuple[float, float], passed_ms: int) -> None:
    """Tuning a limit while running neither fills nor empties a bucket, and time before it counts at the old rate."""
    bucket = Bucket(old[0] / 2, old[0], old[1], START_MS)
    now_ms = START_MS + passed_ms
    retuned = bucket.retuned(capacity=new[0], rate=new[1], now_ms=now_ms)
    assert retuned.tokens == min(bucket.refilled(now_ms).tokens, new[0])
    assert (retuned.capacity, retuned.rate, retuned.updated_at_ms) == (*new, now_ms)
