"""What may be said of a task is checked where it is said, in words its author can act on."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from shoestring import ArgumentError, Durability, Shoestring, Timeout, UsageError
from shoestring.app.handler import Handler
from shoestring.core.model import Options


@pytest.fixture
def mail() -> Handler[..., Any]:
    app = Shoestring()

    @app.task(name="mail")
    def mail(to: str) -> str:
        return to

    return mail


def test_options_become_what_is_sent(mail: Handler[..., Any]) -> None:
    """Lengths of time are sent as such: the daemon counts them on its own clock."""
    chosen = mail.using(
        user="alice",
        queue="slow",
        run_after=timedelta(hours=1),
        priority=10,
        unique="k",
        expires=timedelta(days=2),
        durability="durable",
    ).chosen

    assert chosen == Options(
        user="alice",
        queue="slow",
        delay_ms=3_600_000,
        priority=10,
        unique="k",
        expires_in_ms=172_800_000,
        durability=Durability.DURABLE,
    )


def test_an_aware_datetime_is_sent_as_the_instant_it_is(mail: Handler[..., Any]) -> None:
    """Wherever the producer stands."""
    vienna = timezone(timedelta(hours=1))

    chosen = mail.using(
        run_after=datetime(2030, 1, 1, 1, tzinfo=vienna), expires=datetime(2030, 1, 2, tzinfo=UTC)
    ).chosen

    assert chosen == Options(due_at_ms=1_893_456_000_000, expires_at_ms=1_893_542_400_000)


def test_later_options_replace_earlier_ones_and_leave_the_rest(mail: Handler[..., Any]) -> None:
    """`using` builds on `using`; the handler it began with stays as it was."""
    first = mail.using(user="alice", run_after=timedelta(hours=1))

    second = first.using(run_after=datetime(2030, 1, 1, tzinfo=UTC), priority=-5)

    assert second.chosen == Options(user="alice", due_at_ms=1_893_456_000_000, priority=-5)
    assert first.chosen == Options(user="alice", delay_ms=3_600_000)
    assert mail.chosen is None


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"run_after": datetime(2030, 1, 1)}, "has no time zone, so which instant it means is not known"),  # noqa: DTZ001
        ({"run_after": timedelta(seconds=-1)}, "must be between 0 and ten years"),
        ({"run_after": timedelta(days=4_000)}, "must be between 0 and ten years"),
        ({"run_after": 60}, "run_after is 60; give a timedelta, as in timedelta(minutes=5)"),
        ({"run_after": datetime(1969, 1, 1, tzinfo=UTC)}, "which is before 1970"),
        ({"expires": timedelta()}, "expires is 0: the task would be stale before it could run"),
        ({"priority": 101}, "priority is 101; give a whole number from -100 to 100, higher runs first"),
        ({"priority": True}, "priority is True"),
        ({"priority": 1.5}, "priority is 1.5"),
        ({"user": ""}, "user is ''; give a text that is not empty"),
        ({"user": 7}, "user is 7; give a text"),
        ({"user": "a\nb"}, "it may not hold control characters or line breaks"),
        ({"queue": ""}, "queue is ''"),
        ({"unique": ""}, "unique is ''"),
        ({"durability": "fast"}, "durability is 'fast'; give one of 'volatile', 'relaxed', 'durable'"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(mail: Handler[..., Any], options: dict[str, Any], told: str) -> None:
    """Before anything is sent, in the line that is wrong."""
    with pytest.raises(ArgumentError, match=re.escape(told)):
        mail.using(**options)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"queue": ""}, "queue is ''"),
        ({"concurrency": 0}, "concurrency is 0; give a whole number from 1 to 10,000"),
        ({"durability": "fast"}, "durability is 'fast'"),
        ({"delivery": "exactly_once"}, "delivery is 'exactly_once'; give one of 'at_least_once', 'at_most_once'"),
        ({"timeout": 30}, "timeout is 30; give a Timeout, as in Timeout(soft=25, hard=30)"),
        ({"timeout": Timeout(hard=0)}, "timeout: hard is 0; give seconds above 0, or None for no limit"),
        ({"timeout": Timeout(soft=30, hard=30)}, "soft comes first, so that the handler can still clean up"),
        ({"retry": 5}, "retry is 5; give a RetryPolicy"),
        ({"batch": "yes"}, "batch is 'yes'; give True or False"),
        ({"name": "a\nb"}, "name is 'a\\nb'"),
        ({"name": "x" * 201}, "has 201 characters; at most 200 are kept"),
    ],
)
def test_a_declaration_that_cannot_be_is_refused_by_name(options: dict[str, Any], told: str) -> None:
    """When the module is imported, not when the first task runs."""
    declare: Any = Shoestring().task

    def work(items: list[int]) -> None:
        """Do them."""

    with pytest.raises(UsageError, match=re.escape(told)):
        declare(**options)(work)
