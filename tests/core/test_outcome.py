"""What an attempt comes to: every signal and error, with attempts left and without."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shoestring.core.lifecycle import Event
from shoestring.core.outcome import Outcome, describe, outcome_of
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import Discard, ItemsFailed, RateLimited, RetryLater, Snooze, SoftTimeout

POLICY = RetryPolicy(max_attempts=3, base=2.0, give_up_on=(KeyError,))


def came_to(error: BaseException, *, attempt: int = 1, chars_max: int = 1_000) -> Outcome:
    return outcome_of(error, POLICY, attempt=attempt, draw=0.5, chars_max=chars_max)


@pytest.mark.parametrize(
    ("error", "attempt", "event", "delay_ms", "said"),
    [
        (ValueError("no"), 1, Event.RETRY, 1_000, "ValueError: no"),
        (ValueError("no"), 2, Event.RETRY, 2_000, "ValueError: no"),
        (ValueError("no"), 3, Event.DISCARD, 0, "ValueError: no"),
        (ValueError(), 1, Event.RETRY, 1_000, "ValueError"),
        (KeyError("k"), 1, Event.DISCARD, 0, "KeyError: 'k'"),
        (SoftTimeout("late"), 1, Event.RETRY, 1_000, "SoftTimeout: late"),
        (SystemExit(3), 1, Event.DISCARD, 0, "SystemExit: 3"),  # not an Exception: nobody asked to try again
        (RetryLater(5), 1, Event.RETRY, 5_000, "RetryLater: retry in 5 s"),
        (RetryLater(timedelta(minutes=1), "busy"), 2, Event.RETRY, 60_000, "RetryLater: busy"),
        (RetryLater(5), 3, Event.DISCARD, 0, "RetryLater: retry in 5 s"),
        (RetryLater(-5), 1, Event.RETRY, 0, "RetryLater: retry in 0 s"),
        (Snooze(0.25), 1, Event.SNOOZE, 250, "snoozed for 0.25 s"),
        (Snooze(5), 99, Event.SNOOZE, 5_000, "snoozed for 5 s"),
        (RateLimited(7), 99, Event.RELEASE, 7_000, "rate limited for 7 s"),
        (Discard("gone"), 1, Event.DISCARD, 0, "discarded: gone"),
        (ItemsFailed({}), 1, Event.DISCARD, 0, "ItemsFailed: 0 items failed"),
    ],
)
def test_every_end_of_an_attempt_has_one_meaning(
    error: BaseException, attempt: int, event: Event, delay_ms: int, said: str
) -> None:
    """What a handler raises is all it can say: it must come to exactly this."""
    outcome = came_to(error, attempt=attempt)

    assert [event, delay_ms, said] == [outcome.event, outcome.delay_ms, outcome.error]


@pytest.mark.parametrize("scope", ["lane", "queue", "user"])
def test_only_a_rate_limit_asks_for_a_park(scope: str) -> None:
    """One write holds back everything that would meet the same refusal."""
    assert came_to(RateLimited(1, scope=scope)).scope == scope  # type: ignore[arg-type]
    assert came_to(Snooze(1)).scope is None
    assert came_to(ValueError()).scope is None


def raised() -> ValueError:
    try:
        raise ValueError("wrong " * 50)
    except ValueError as error:
        return error


def test_texts_are_cut_and_a_traceback_keeps_its_end() -> None:
    """A row must not grow with what an exception holds; where it was raised stands at the end of a traceback."""
    outcome = came_to(raised(), chars_max=40)

    assert [len(outcome.error), len(outcome.traceback)] == [40, 40]
    assert outcome.error.startswith("ValueError: wrong")
    assert outcome.traceback.endswith("wrong \n")


def test_a_traceback_shows_where_it_was_raised() -> None:
    """Whoever looks at a discarded task a week later has nothing else."""
    _, trace = describe(raised(), 10_000)

    assert 'raise ValueError("wrong " * 50)' in trace


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("not even this")


def test_an_error_that_cannot_be_printed_is_an_error_all_the_same() -> None:
    """Its task fails by its policy; that its text fails too must not take the worker down."""
    outcome = came_to(Unprintable())

    assert [Event.RETRY, "Unprintable"] == [outcome.event, outcome.error.partition(":")[0]]


@pytest.mark.parametrize(
    "error", [OSError("/tmp/\udcff"), RateLimited(1, reason="\udcff"), Snooze(1, "\udcff"), Discard("\udcff")]
)
def test_an_error_that_utf_8_cannot_spell_can_be_stored(error: BaseException) -> None:
    """File names read from a disk hold such characters; the row they end up in must not fail the whole commit."""
    outcome = came_to(error)

    assert "?" in outcome.error.encode().decode()
    outcome.traceback.encode()
