"""What an attempt came to, as data. The runner makes outcomes, the completer acts on them; nothing else does either."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Final

from shoestring.core.lifecycle import Event
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import Discard, RateLimited, RetryLater, Scope, Snooze


@dataclass(frozen=True, slots=True)
class Outcome:
    """`delay_ms` counts from the end of the attempt. `scope` is set when the attempt asks for a park."""

    event: Event
    delay_ms: int = 0
    error: str = ""
    traceback: str = ""
    scope: Scope | None = None


COMPLETED: Final = Outcome(Event.COMPLETE)
RELEASED: Final = Outcome(Event.RELEASE)
CANCELLED: Final = Outcome(Event.CANCEL)


def outcome_of(error: BaseException, policy: RetryPolicy, *, attempt: int, draw: float, chars_max: int) -> Outcome:
    """Return what raising `error` in attempt number `attempt` (from 1) comes to under `policy`.

    `draw` is a random number in [0, 1) for the jitter; texts are cut to `chars_max` characters.
    """
    if isinstance(error, RateLimited):
        return Outcome(Event.RELEASE, _ms(error.delay_s), str(error), scope=error.scope)
    if isinstance(error, Snooze):
        return Outcome(Event.SNOOZE, _ms(error.delay_s), str(error))
    said, trace = describe(error, chars_max)
    if isinstance(error, Discard):
        return Outcome(Event.DISCARD, 0, f"discarded: {error}"[:chars_max], trace)
    if isinstance(error, RetryLater):
        if attempt >= policy.max_attempts:
            return Outcome(Event.DISCARD, 0, said, trace)
        return Outcome(Event.RETRY, _ms(error.delay_s), said, trace)
    delay_ms = policy.decide(attempt, error, draw)
    if delay_ms is None:
        return Outcome(Event.DISCARD, 0, said, trace)
    return Outcome(Event.RETRY, delay_ms, said, trace)


def describe(error: BaseException, chars_max: int) -> tuple[str, str]:
    """Return what people read of an error: `Type: message`, and the traceback, its end kept if it is long."""
    said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    lines = traceback.format_exception(error)
    return said[:chars_max], "".join(lines)[-chars_max:]


def _ms(delay_s: float) -> int:
    return int(delay_s * 1000)
