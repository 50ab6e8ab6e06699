"""What a handler raises to steer its own task. Signals are not failures: nothing is wrong.

They derive from BaseException so that a handler's own `except Exception` does not swallow them.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Literal

Scope = Literal["lane", "queue", "user"]


def seconds(delay: float | timedelta) -> float:
    """Return `delay` in seconds; negative ones become 0."""
    value = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    return max(0.0, value)


class Signal(BaseException):
    """Base of everything a handler raises to steer its task."""


class RetryLater(Signal):
    """Run this task (or item) again after `delay`. Burns an attempt; the delay replaces the policy's."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or f"retry in {seconds(delay):g} s")
        self.delay_s = seconds(delay)


class Snooze(Signal):
    """Run this task (or item) again after `delay`. Burns no attempt."""

    def __init__(self, delay: float | timedelta, reason: str = "") -> None:
        super().__init__(reason or f"snoozed for {seconds(delay):g} s")
        self.delay_s = seconds(delay)


class RateLimited(Signal):
    """The other side said wait. Parks the lane (or queue, or user) with one write; burns no attempt."""

    def __init__(self, retry_after: float | timedelta, scope: Scope = "lane", reason: str = "") -> None:
        super().__init__(reason or f"rate limited for {seconds(retry_after):g} s")
        self.delay_s = seconds(retry_after)
        self.scope: Scope = scope


class Discard(Signal):
    """Give this task (or item) up, with a reason. It is kept among the discarded and can be replayed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class ItemsFailed(Signal):
    """Raised by a `batch=True` handler: these items of its list failed, all others are done.

    Keys are positions in the list the handler was given; values are the exceptions (signals are allowed).
    """

    def __init__(self, errors: Mapping[int, BaseException]) -> None:
        super().__init__(f"{len(errors)} items failed")
        self.errors = dict(errors)


class SoftTimeout(Exception):  # noqa: N818 - named as the field names it
    """Raised inside a handler at its soft time limit. An ordinary exception: not caught, it fails the attempt."""
