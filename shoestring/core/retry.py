"""When a failed attempt is tried again, if at all.

Exponential back-off with full jitter: the n-th delay is drawn evenly from 0 to `base * factor ** (n - 1)`, at most
`cap`. Of the ways to spread retries this one needs the fewest calls in total (Marc Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015): without it, everything that failed together comes back together.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from shoestring.core.errors import UsageError

Duration = float | timedelta | str

_UNITS_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
_WRITTEN: Final = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*$")
#: Ten years. A longer delay is a mistake in units, and would put an instant where clocks and JSON disagree.
_LONGEST_S: Final = 3_650 * 86_400.0
_ATTEMPTS_MAX: Final = 1_000_000


def duration_s(duration: Duration, name: str = "duration") -> float:
    """Return a length of time in seconds; raise UsageError naming it if it is not one.

    >>> duration_s(1.5), duration_s("90s"), duration_s("3d"), duration_s(timedelta(minutes=1))
    (1.5, 90.0, 259200.0, 60.0)
    """
    given: object = duration  # what the annotation promises is what is checked here
    if isinstance(given, timedelta):
        value = given.total_seconds()
    elif isinstance(given, str):
        if (written := _WRITTEN.match(given)) is None:
            raise UsageError(f"{name} is {given!r}, which is no length of time; write '30s', '5m', '1h' or '3d'")
        value = float(written[1]) * _UNITS_S[written[2]]
    elif isinstance(given, int | float) and not isinstance(given, bool):
        value = float(given)
    else:
        raise UsageError(f"{name} is {given!r}; give seconds, a timedelta, or text such as '5m'")
    if not math.isfinite(value) or not 0 <= value <= _LONGEST_S:
        raise UsageError(f"{name} is {duration!r}; it must be between 0 and ten years")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, when and after which errors a task is attempted again.

    `base` is the bound of the first delay in seconds, `factor` its growth, `cap` its limit. `max_attempts` counts
    the first attempt. Errors outside `on`, or in `give_up_on`, discard the task at once. With `schedule` the delays
    are exactly those written, without jitter, and there is one attempt more than delays.

    >>> policy = RetryPolicy(max_attempts=4, base=2.0)
    >>> [policy.delay_ms(attempt, draw=0.5) for attempt in (1, 2, 3)]
    [1000, 2000, 4000]
    >>> policy.decide(1, ValueError("no"), draw=0.5), policy.decide(4, ValueError("no"), draw=0.5)
    (1000, None)
    >>> policy = RetryPolicy(schedule=("1m", "1h", "1d", "3d"))
    >>> policy.max_attempts, policy.delay_ms(4, draw=0.5) == 3 * 24 * 3600 * 1000
    (5, True)
    """

    max_attempts: int = 5
    base: float = 2.0
    factor: float = 2.0
    cap: float | timedelta = 3_600.0
    jitter: bool = True
    on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()
    schedule: tuple[Duration, ...] | None = None
    _cap_ms: float = field(init=False, repr=False, compare=False)
    _schedule_ms: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        schedule = self.schedule or ()
        if self.schedule is not None and not (schedule and _is_tuple_of(object, schedule)):
            raise UsageError(f"retry: schedule is {schedule!r}; give a tuple of delays, as in ('1m', '1h', '1d')")
        # A frozen class lets its fields be set in no other way.
        set_field = object.__setattr__
        set_field(self, "_cap_ms", duration_s(self.cap, "retry: cap") * 1_000)
        set_field(self, "_schedule_ms", tuple(round(duration_s(d, "retry: schedule") * 1_000) for d in schedule))
        if schedule:
            set_field(self, "max_attempts", len(schedule) + 1)
        self._refuse_nonsense()

    def delay_ms(self, attempt: int, draw: float) -> int:
        """Return how long to wait after `attempt` attempts; `draw` in [0, 1) is the dice, thrown by the caller."""
        assert attempt >= 1, f"no attempt was made yet: {attempt}"
        if self._schedule_ms:
            return self._schedule_ms[min(attempt, len(self._schedule_ms)) - 1]
        try:
            bound_ms = min(self._cap_ms, self.base * 1_000 * self.factor ** (attempt - 1))
        except OverflowError:
            # 2.0 ** 1024 is more than a float holds; the bound was at the cap long before.
            bound_ms = self._cap_ms if self.base else 0.0
        return int(bound_ms * draw if self.jitter else bound_ms)

    def retries(self, error: BaseException) -> bool:
        """Return whether an attempt that ended in `error` may be followed by another."""
        return isinstance(error, self.on) and not isinstance(error, self.give_up_on)

    def decide(self, attempt: int, error: BaseException, draw: float) -> int | None:
        """Return the delay in milliseconds after the failed attempt number `attempt`, or None to discard the task."""
        if attempt >= self.max_attempts or not self.retries(error):
            return None
        return self.delay_ms(attempt, draw)

    def _refuse_nonsense(self) -> None:
        attempts: object = self.max_attempts
        if isinstance(attempts, bool) or not isinstance(attempts, int):
            raise UsageError(f"retry: max_attempts is {self.max_attempts!r}; give a whole number")
        if not 1 <= self.max_attempts <= _ATTEMPTS_MAX:
            raise UsageError(
                f"retry: max_attempts is {self.max_attempts}; it counts the first attempt, so 1 means never again, "
                f"and the most is {_ATTEMPTS_MAX:,}"
            )
        duration_s(self.base, "retry: base")
        if not (math.isfinite(self.factor) and self.factor >= 1):
            raise UsageError(f"retry: factor is {self.factor!r}; 1 keeps the delay the same, 2 doubles it")
        for name, kinds in (("on", self.on), ("give_up_on", self.give_up_on)):
            if not _is_tuple_of(type, kinds) or not all(issubclass(kind, BaseException) for kind in kinds):
                raise UsageError(f"retry: {name} is {kinds!r}; give a tuple of exception classes, as in (OSError,)")


def _is_tuple_of(kind: type, value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(member, kind) for member in value)
