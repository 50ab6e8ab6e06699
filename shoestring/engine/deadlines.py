"""Time limits of running calls, cheap enough to have one on each of 100,000 calls a second.

Calls of one handler share their limit, so their deadlines come in the order they were set: a queue per length of
time, one timer for the head of each. A call that ends before it ever waits is never entered here at all.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

_PRUNE_AT: Final = 64


class Limited(Protocol):
    """What has deadlines: `turn` changes when the call they were set for is over."""

    @property
    def turn(self) -> int: ...


Expired = Callable[[Limited], None]
_Entry = tuple[float, Limited, int, Expired]


class Deadlines:
    def __init__(self) -> None:
        self._queues: dict[float, deque[_Entry]] = {}
        self._armed: set[float] = set()
        self._prune_at: dict[float, int] = {}

    def set(self, limit_s: float, call: Limited, expired: Expired) -> None:
        """Have `expired(call)` called `limit_s` seconds from now unless its turn is over by then."""
        loop = asyncio.get_running_loop()
        queue = self._queues.get(limit_s)
        if queue is None:
            queue = self._queues[limit_s] = deque()
        while queue and queue[0][1].turn != queue[0][2]:
            queue.popleft()
        if len(queue) > self._prune_at.get(limit_s, _PRUNE_AT):
            self._prune(limit_s, queue)
        if limit_s not in self._armed:
            self._armed.add(limit_s)
            loop.call_later(limit_s, self._expire, limit_s)
        queue.append((loop.time() + limit_s, call, call.turn, expired))

    def _prune(self, limit_s: float, queue: deque[_Entry]) -> None:
        # Behind one long call the ended ones would pile up: take them out each time the queue has doubled.
        alive = [entry for entry in queue if entry[1].turn == entry[2]]
        queue.clear()
        queue.extend(alive)
        self._prune_at[limit_s] = max(_PRUNE_AT, 2 * len(alive))

    def _expire(self, limit_s: float) -> None:
        loop = asyncio.get_running_loop()
        queue = self._queues[limit_s]
        now = loop.time()
        while queue:
            at, call, turn, expired = queue[0]
            if call.turn == turn and at > now:
                loop.call_at(at, self._expire, limit_s)
                return
            queue.popleft()
            if call.turn == turn:
                expired(call)
        self._armed.discard(limit_s)
