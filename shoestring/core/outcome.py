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
        return Outcome(Event.RELEASE, _ms(error.delay_s), text_of(error)[:chars_max], scope=error.scope)
    if isinstance(error, Snooze):
        return Outcome(Event.SNOOZE, _ms(error.delay_s), text_of(error)[:chars_max])
    said, trace = describe(error, chars_max)
    if isinstance(error, Discard):
        return Outcome(Event.DISCARD, 0, f"discarded: {text_of(error)}"[:chars_max], trace)
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
    name, text = type(error).__name__, text_of(error)
    trace = storable("".join(traceback.format_exception(error)))
    return (f"{name}: {text}" if text else name)[:chars_max], trace[-chars_max:]


def text_of(error: BaseException) -> str:
    """Return what an exception says, whatever it is: one whose own text fails must not take the worker with it."""
    try:
        return storable(str(error))
    except Exception as failure:  # noqa: BLE001 - it is somebody else's __str__
        return f"its text cannot be had, {type(failure).__name__}"


def storable(text: str) -> str:
    """Return `text` with what UTF-8 cannot spell replaced: a file name read from a disk may hold such characters."""
    return text.encode(errors="replace").decode()


def _ms(delay_s: float) -> int:
    return int(delay_s * 1000)
