"""The token bucket: four numbers that say how much a user may do, and when more.

`tokens` of at most `capacity` were there at `updated_at_ms`; since then `rate` a second came in. Nothing ticks: what
is there now follows from the numbers, so that a million idle buckets cost nothing.

Under steps of the wall clock:

    back      mints nothing, and nothing is minted for the repeated time: the same second never counts twice
    far back  as above, but `updated_at_ms` comes down to the time a full refill takes: a clock that was years
              ahead at the last start must not freeze a user for years
    forward   mints at most one bucket, as any long pause does
"""

from __future__ import annotations

import math
from typing import Final

import msgspec

from shoestring.core.errors import UsageError

#: Ten years: the farthest a wait is said to last. Whoever waits looks again then.
_FARTHEST_MS: Final = 3_650 * 86_400_000


class Bucket(msgspec.Struct, frozen=True, gc=False):
    """A token bucket as a value; every operation returns the bucket as it is afterwards.

    >>> bucket = Bucket.full(capacity=10, rate=2, now_ms=0)
    >>> bucket, granted, _ = bucket.take(9, now_ms=0)
    >>> granted, bucket.tokens
    (True, 1.0)
    >>> bucket, granted, ready_at_ms = bucket.take(5, now_ms=500)
    >>> granted, bucket.tokens, ready_at_ms
    (False, 2.0, 2000)
    """

    tokens: float
    capacity: float
    rate: float  # tokens a second
    updated_at_ms: int

    @classmethod
    def full(cls, *, capacity: float, rate: float, now_ms: int) -> Bucket:
        """Return the bucket of somebody not seen before."""
        return cls(float(capacity), capacity, rate, now_ms)

    def refilled(self, now_ms: int) -> Bucket:
        """Return the bucket with what came in until now.

        A bucket read from disk goes through here once, since its `updated_at_ms` may be far ahead of the clock.
        """
        passed_ms = now_ms - self.updated_at_ms
        if passed_ms > 0:
            tokens = min(self.capacity, self.tokens + self.rate * passed_ms / 1_000)
            return Bucket(tokens, self.capacity, self.rate, now_ms)
        if passed_ms < 0 and -passed_ms * self.rate > self.capacity * 1_000:
            return Bucket(self.tokens, self.capacity, self.rate, now_ms + math.ceil(self.capacity * 1_000 / self.rate))
        return self

    def take(self, n: float, now_ms: int) -> tuple[Bucket, bool, int]:
        """Take `n` tokens if they are there: return (bucket, granted, ready_at_ms).

        When granted, `ready_at_ms` is `now_ms`; otherwise the instant from which the same request is granted, if
        nobody else takes any. Raises UsageError for more than the capacity, which no wait would bring.
        """
        if n > self.capacity:
            raise UsageError(
                f"{n:g} tokens are wanted at once of a bucket that holds {self.capacity:g}: no wait brings them; "
                "ask for fewer at a time, or raise the limit's capacity"
            )
        bucket = self.refilled(now_ms)
        if bucket.tokens >= n:
            return Bucket(bucket.tokens - n, self.capacity, self.rate, bucket.updated_at_ms), True, now_ms
        return bucket, False, _filled_at_ms(bucket, n)

    def spend(self, n: float, now_ms: int) -> Bucket:
        """Take `n` tokens for what runs in any case; what is missing is owed, and comes in before anything else.

        A debt is an `updated_at_ms` ahead of now: until then, what comes in is spent already. It is remembered up to
        one capacity.

        >>> bucket = Bucket(tokens=1, capacity=50, rate=10, updated_at_ms=0).spend(50, now_ms=0)
        >>> bucket.tokens, bucket.ready_at_ms(1, now_ms=0)
        (0.0, 5000)
        """
        bucket = self.refilled(now_ms)
        missing = n - bucket.tokens
        if missing <= 0:
            return Bucket(bucket.tokens - n, self.capacity, self.rate, bucket.updated_at_ms)
        owed_ms = math.ceil(min(missing * 1_000 / self.rate, _FARTHEST_MS))
        return Bucket(0.0, self.capacity, self.rate, bucket.updated_at_ms + owed_ms).refilled(now_ms)

    def ready_at_ms(self, n: float, now_ms: int) -> int:
        """Return when `n` tokens (at most the capacity) are there; `now_ms` if they are."""
        bucket = self.refilled(now_ms)
        n = min(n, self.capacity)
        return now_ms if bucket.tokens >= n else _filled_at_ms(bucket, n)

    def retuned(self, *, capacity: float, rate: float, now_ms: int) -> Bucket:
        """Return the bucket under another limit; what is in it stays, as far as it fits."""
        bucket = self.refilled(now_ms)
        return Bucket(min(bucket.tokens, capacity), capacity, rate, bucket.updated_at_ms)


def _filled_at_ms(bucket: Bucket, n: float) -> int:
    """Return the first instant at which the bucket, left alone, holds `n` tokens."""
    missing = (n - bucket.tokens) * 1_000
    if missing >= bucket.rate * _FARTHEST_MS:
        return bucket.updated_at_ms + _FARTHEST_MS
    at_ms = bucket.updated_at_ms + math.ceil(missing / bucket.rate)
    # Division and multiplication may round differently: the answer must be an instant at which it is granted.
    step_ms = 1
    while bucket.refilled(at_ms).tokens < n:
        at_ms += step_ms
        step_ms *= 2
    return at_ms
