"""What callers may say about a task or a handler, checked where it is said.

A wrong option is found when the call is made, by the one who wrote it, and nothing has been stored then. Every
message names the option, what was given and what would do.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import Enum
from typing import Final, Literal, TypeVar

import msgspec

from shoestring.core.errors import ArgumentError, UsageError
from shoestring.core.model import (
    DEFAULT_OPTIONS,
    PRIORITY_MAX,
    PRIORITY_MIN,
    Durability,
    Options,
    Timeout,
)

DurabilityName = Literal["volatile", "relaxed", "durable"]
DeliveryName = Literal["at_least_once", "at_most_once"]
E = TypeVar("E", bound=Enum)

#: Further away than this is a mistake in units, and past what other languages' clocks hold.
LONGEST: Final = timedelta(days=3_650)


def merged(
    options: Options | None,
    *,
    user: str | None,
    queue: str | None,
    run_after: timedelta | datetime | None,
    priority: int | None,
    unique: str | None,
    expires: timedelta | datetime | None,
    durability: Durability | DurabilityName | None,
) -> Options:
    """Return `options` with what is not None replaced. Raises ArgumentError naming the option that does not fit."""
    changes: dict[str, object] = {}
    if user is not None:
        changes["user"] = text("user", user)
    if queue is not None:
        changes["queue"] = text("queue", queue)
    if unique is not None:
        changes["unique"] = text("unique", unique)
    if priority is not None:
        changes["priority"] = _priority(priority)
    if durability is not None:
        changes["durability"] = member("durability", Durability, durability)
    if run_after is not None:
        changes["delay_ms"], changes["due_at_ms"] = _when("run_after", run_after)
    if expires is not None:
        changes["expires_in_ms"], changes["expires_at_ms"] = _when("expires", expires)
        if changes["expires_in_ms"] == 0:
            raise ArgumentError("expires is 0: the task would be stale before it could run; give a longer time")
    return msgspec.structs.replace(options or DEFAULT_OPTIONS, **changes)


def text(name: str, value: object) -> str:
    """Return `value` if it is a text that can stand as a key."""
    if not isinstance(value, str) or not value:
        raise ArgumentError(f"{name} is {value!r}; give a text that is not empty")
    if not value.isprintable():
        raise ArgumentError(f"{name} is {value!r}; it may not hold control characters or line breaks")
    return value


def member(name: str, kind: type[E], value: object) -> E:
    """Return the member of `kind` that `value` is or names."""
    try:
        return kind(value)
    except ValueError:
        known = ", ".join(repr(each.value) for each in kind)
        raise ArgumentError(f"{name} is {value!r}; give one of {known}") from None


def positive(name: str, value: object, most: int) -> int:
    """Return `value` if it is a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ArgumentError(f"{name} is {value!r}; give a whole number from 1 to {most:,}")
    return value


def milliseconds(name: str, length: object) -> int:
    """Return a length of time in milliseconds."""
    if not isinstance(length, timedelta):
        raise ArgumentError(f"{name} is {length!r}; give a timedelta, as in timedelta(minutes=5)")
    if not timedelta() <= length <= LONGEST:
        raise ArgumentError(f"{name} is {length!r}; it must be between 0 and ten years")
    return length // timedelta(milliseconds=1)


def timeout(value: Timeout | None) -> Timeout:
    """Return the time limits of a handler, checked against each other."""
    limits = Timeout() if value is None else value
    if not isinstance(limits, Timeout):
        raise UsageError(f"timeout is {limits!r}; give a Timeout, as in Timeout(soft=25, hard=30)")
    for name, seconds in (("soft", limits.soft), ("hard", limits.hard)):
        if seconds is not None and not 0 < seconds <= LONGEST.total_seconds():
            raise UsageError(f"timeout: {name} is {seconds!r}; give seconds above 0, or None for no limit")
    if limits.soft is not None and limits.hard is not None and limits.soft >= limits.hard:
        raise UsageError(
            f"timeout: soft is {limits.soft:g} s and hard {limits.hard:g} s; soft comes first, so that the handler can "
            "still clean up"
        )
    return limits


def _priority(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not PRIORITY_MIN <= value <= PRIORITY_MAX:
        raise ArgumentError(
            f"priority is {value!r}; give a whole number from {PRIORITY_MIN} to {PRIORITY_MAX}, higher runs first"
        )
    return value


def _when(name: str, value: object) -> tuple[int | None, int | None]:
    """Return a length of time and an instant in milliseconds, of which one is None.

    A length is counted by the daemon from when it accepts the task, so that the producer's clock does not matter.
    """
    if not isinstance(value, datetime):
        return milliseconds(name, value), None
    if value.tzinfo is None or value.utcoffset() is None:
        raise ArgumentError(
            f"{name} is {value!r}, which has no time zone, so which instant it means is not known. Give an aware "
            "datetime, as in datetime(2030, 1, 1, tzinfo=UTC), or a timedelta"
        )
    at_ms = (value - _EPOCH) // timedelta(milliseconds=1)
    if at_ms < 0:
        raise ArgumentError(f"{name} is {value!r}, which is before 1970")
    return None, at_ms


_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
