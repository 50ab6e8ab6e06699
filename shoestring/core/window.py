"""A bounded part in memory of an ordered set that lives on disk.

Lanes (ordered by rank) and timers (ordered by due time) are the same problem: millions of keys on disk, of which
only the first few matter now. A window holds the first ones.

    disk     k1 k2 k3 k4 k5 k6 k7 ...
    window  [k1 k2 k3 k4]
                       ^ cursor

Two invariants carry everything:

1. A key on disk that is not after `cursor` is in the window, or was taken out by `pop` and is its taker's business.
2. If `complete`, the disk holds nothing after `cursor`.

A new key is therefore kept in memory only if it is not after the cursor, or if the window is complete; any other key
is left to the disk and found by the next load. A key that arrives while a load is under way may or may not be in what
the load will bring: it is noted (`_missed`), and the load then does not make the window complete. Forgetting that note
is a lost task, seen only after the next restart. What the disk did has to be told here in the order it was done: a key
stored after a load had read, but told before the load ends, could be behind the cursor the load leaves.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

K = TypeVar("K", int, tuple[int, int])
V = TypeVar("V")


class Window(Generic[K, V]):
    """The first keys of an ordered set, at most about `capacity` of them; keys are unique."""

    __slots__ = ("_missed", "capacity", "complete", "cursor", "heap", "loading", "rewound")

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.heap: list[tuple[K, V]] = []
        self.cursor: K | None = None
        self.complete = False
        self.loading = False
        self._missed = False
        self.rewound = False

    def __len__(self) -> int:
        return len(self.heap)

    def accepts(self, key: K) -> bool:
        """Tell whether `key`, now on disk, has to be held here; if not, it is left to a later load."""
        if self.loading and (self.cursor is None or key > self.cursor):
            self._missed = True
            return False
        if self.complete:
            return len(self.heap) < self.capacity or self._give_up_the_rest(key)
        return self.cursor is not None and key <= self.cursor

    def _give_up_the_rest(self, key: K) -> bool:
        # Full and complete: what comes after the cursor is from now on the disk's. What comes before it must be held.
        if self.cursor is not None and key <= self.cursor:
            return True
        self.complete = False
        return False

    def push(self, key: K, value: V) -> None:
        """Hold a key that `accepts` said yes to."""
        if self.cursor is None or key > self.cursor:
            self.cursor = key
        heappush(self.heap, (key, value))

    def hold(self, key: K, value: V) -> None:
        """Hold a key whatever the disk knows of it. Loads must leave it out, as everything else its owner knows."""
        heappush(self.heap, (key, value))

    def rewind(self, before: K) -> None:
        """Have everything after `before` read again. Loads must leave out what is already here."""
        if self.cursor is not None and before < self.cursor:
            self.cursor = before
        self.complete = False
        # A load under way reads on from the old cursor: it must neither move the new one nor complete the window.
        self.rewound = True

    def pop(self) -> V:
        return heappop(self.heap)[1]

    def wants_load(self, low: int) -> bool:
        return not self.complete and not self.loading and len(self.heap) <= low

    def begin_load(self) -> K | None:
        """Start a load; the caller reads the keys after the one returned (from the start if None)."""
        self.loading = True
        self._missed = self.rewound = False
        return self.cursor

    def end_load(self, found: Iterable[tuple[K, V]], *, last: K | None, more: bool) -> None:
        """Take in what a load found. `last` is the last key it saw, `more` whether the disk may hold others."""
        for key, value in found:
            heappush(self.heap, (key, value))
        if last is not None and not self.rewound:
            self.cursor = last
        self.complete = not more and not self._missed and not self.rewound
        self.loading = False

    def abort_load(self) -> None:
        self.loading = False

    def trim(self) -> list[V]:
        """Give back to the disk what is over twice the capacity and return it, so that its owner forgets it."""
        if len(self.heap) <= 2 * self.capacity or self.loading:
            return []
        # Once for a whole capacity of pushes: a sort a push would be quadratic.
        self.heap.sort(key=lambda entry: entry[0])
        dropped = [value for _, value in self.heap[self.capacity :]]
        del self.heap[self.capacity :]
        last = self.heap[-1][0]
        # Never forward: between the cursor and a key that was put back, or after a rewind, there is more on disk.
        if self.cursor is not None and last < self.cursor:
            self.cursor = last
        self.complete = False
        return dropped

    def remove(self, wanted: set[K]) -> None:
        """Take out the keys in `wanted`, as far as they are here."""
        self.heap = [entry for entry in self.heap if entry[0] not in wanted]
        heapify(self.heap)
