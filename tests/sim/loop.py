"""An asyncio event loop whose clock is a number: it jumps to the next timer instead of waiting for it.

Everything that runs on it is deterministic, because nothing else moves the time, and asyncio runs its callbacks in
the order they were scheduled. An hour of the queue's life takes as long as its callbacks take.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

#: Virtual seconds one turn of the loop takes at least: who spins instead of waiting makes time pass, too.
_TURN_S: Final = 2e-6
#: A run has some 20,000 turns. One with more is not going anywhere.
_TURNS_MAX: Final = 400_000


class Killed(SystemExit):
    """Ends the loop where it stands, as `kill -9` does: asyncio lets it through, nothing is cleaned up."""


class Livelock(AssertionError):
    """The loop turned and turned without coming to an end."""


class _NoFiles(selectors.BaseSelector):
    """A selector without files. What asyncio would wait, passes at once."""

    def __init__(self, passed: Callable[[float | None], None]) -> None:
        self._passed = passed
        self._keys: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys[fd] = selectors.SelectorKey(fileobj, fd, events, data)
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        return self._keys.pop(fileobj if isinstance(fileobj, int) else fileobj.fileno())

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._passed(timeout)
        return []

    def get_map(self) -> dict[int, selectors.SelectorKey]:  # type: ignore[override]
        return self._keys


class SimLoop(asyncio.SelectorEventLoop):
    """A loop that starts at `start_s` and never waits."""

    def __init__(self, start_s: float) -> None:
        self._now_s = start_s
        self.turns = 0
        super().__init__(_NoFiles(self._pass))
        self.slow_callback_duration = 1e9

    def time(self) -> float:
        return self._now_s

    def _pass(self, timeout: float | None) -> None:
        self.turns += 1
        if timeout is None:
            raise AssertionError("nothing is scheduled any more: everybody waits for somebody else")
        if self.turns > _TURNS_MAX:
            raise Livelock(f"{self.turns} turns of the loop, and no end")
        self._now_s += max(timeout, _TURN_S)

    def run(self, main: Coroutine[Any, Any, T], *, hush: Callable[[], None]) -> T:
        """Run until `main` returns or somebody raises `Killed`; then `hush`, and forget what was under way."""
        asyncio.set_event_loop(self)
        try:
            return self.run_until_complete(main)
        finally:
            hush()
            self._forget()
            asyncio.set_event_loop(None)
            self.close()

    def _forget(self) -> None:
        # A killed process runs no `finally`. Python insists on running them: whoever could notice was hushed, and what
        # they raise is nobody's business.
        self.set_exception_handler(lambda _loop, _context: None)
        for each in asyncio.all_tasks(self):
            each._log_destroy_pending = False  # type: ignore[attr-defined]
            coro = each.get_coro()
            try:
                coro.close()
            except (Exception, asyncio.CancelledError, SystemExit):  # noqa: BLE001
                continue
