"""One call of a handler, under its time limits: stepped in a slot, or in a thread; ended, cancelled or given up.

Handlers see a plain asyncio world: `current_task()` is the slot's, timeouts and task groups work, and each call has a
context of its own. A call that never waits costs no timer and no switch.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import types
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from typing import Any, Final

from shoestring.core.clock import Dice
from shoestring.core.model import Delivery
from shoestring.core.outcome import CANCELLED, RELEASED, Outcome, outcome_of
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import ItemsFailed, SoftTimeout
from shoestring.engine.deadlines import Deadlines, Limited
from shoestring.engine.records import Task
from shoestring.engine.registry import HandlerSpec
from shoestring.engine.threads import ThreadCall, Threads

#: What must never run twice is not tried again either: an error does not say how far it came.
_NEVER_AGAIN: Final = RetryPolicy(max_attempts=1)


class Stop(enum.Enum):
    """Why a running call was cancelled."""

    HARD_LIMIT = "hard limit"
    SHUTDOWN = "shutdown"
    CANCELLED = "cancelled"


class Slot:
    """One of the places where a task can run."""

    __slots__ = ("abandoned", "number", "rest", "runs", "soft_due", "stop", "thread", "turn", "waited", "work")

    def __init__(self, number: int) -> None:
        self.number = number
        self.turn = 0  # odd during a call; changes, so that what was set up for one never hits the next
        self.runs: Task | None = None
        self.work: asyncio.Task[None] | None = None
        self.rest: asyncio.Future[None] | None = None
        self.stop: Stop | None = None
        self.soft_due = False
        self.thread: ThreadCall | None = None
        self.abandoned = False
        self.waited = False  # the loop had a turn since it last looked at the clock

    @property
    def is_calling(self) -> bool:
        """Tell whether a handler is being called now; between two calls there is nobody to cancel."""
        return self.turn % 2 == 1


class Calls:
    """Makes calls. `first_wait` is told when a call first waits; `hangs` when one did not end although cancelled."""

    def __init__(
        self,
        *,
        dice: Dice,
        threads: int,
        abandon_after_s: float,
        error_chars_max: int,
        first_wait: Callable[[], None],
        hangs: Callable[[Slot], None],
        thread_given_up: Callable[[Task], None],
    ) -> None:
        self._dice = dice
        self._threads = Threads(threads)
        self._deadlines = Deadlines()
        self.abandon_after_s = abandon_after_s
        self._error_chars_max = error_chars_max
        self._first_wait = first_wait
        self._hangs = hangs
        self._thread_given_up = thread_given_up

    async def call(self, slot: Slot, spec: HandlerSpec, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        """Call the handler once under its time limits; raises what it raises."""
        self._begin(slot)
        try:
            if spec.is_async:
                await self._drive(slot, spec.fn(*args, **kwargs))
            else:
                await self._in_thread(slot, partial(spec.fn, *args, **kwargs))
        except ItemsFailed as failed:
            if failed.errors:  # else it says in so many words that all is done
                raise
        finally:
            slot.turn += 1
        if slot.stop is not None:  # it finished in spite of being told to stop: that counts
            self.forget_stop(slot)

    def _begin(self, slot: Slot) -> None:
        if slot.stop is not None:  # told to stop before it began
            raise asyncio.CancelledError
        slot.turn += 1

    @types.coroutine
    def _drive(self, slot: Slot, coro: Coroutine[Any, Any, object]) -> Generator[Any, Any, None]:
        """Step a handler's coroutine, as `await` would, in a context of its own and with its soft limit thrown in."""
        run = contextvars.copy_context().run
        try:
            waits_for = run(coro.send, None)
        except StopIteration:
            return
        self._first_wait()
        self._limit(slot)
        while True:
            try:
                try:
                    sent = yield waits_for
                except BaseException as error:  # noqa: BLE001 - everything thrown at the slot is the handler's
                    waits_for = run(coro.throw, self._translate(slot, error))
                else:
                    waits_for = run(coro.send, sent)
            except StopIteration:
                return

    def _limit(self, slot: Slot) -> None:
        # Only when it first waits does a call need time limits.
        slot.waited = True
        assert slot.runs is not None
        spec = slot.runs.handler.spec
        assert spec is not None
        if spec.timeout.soft is not None:
            self._deadlines.set(spec.timeout.soft, slot, self._soft_limit)
        if spec.timeout.hard is not None:
            self._deadlines.set(spec.timeout.hard, slot, self._hard_limit)

    def _translate(self, slot: Slot, error: BaseException) -> BaseException:
        if slot.soft_due and isinstance(error, asyncio.CancelledError):
            slot.soft_due = False
            assert slot.work is not None
            slot.work.uncancel()
            return SoftTimeout("the soft time limit has passed")
        return error

    async def _in_thread(self, slot: Slot, fn: Callable[[], object]) -> None:
        slot.thread = self._threads.run(fn)
        self._first_wait()
        slot.waited = True
        try:
            if slot.thread.begun is not None:  # all threads are busy: its time has not begun
                await slot.thread.begun
            self._limit(slot)
            await slot.thread.future
        finally:
            slot.thread = None

    def outcome_of(self, slot: Slot, spec: HandlerSpec, error: BaseException, *, attempt: int) -> Outcome:
        """Say what a call came to that raised `error`."""
        stop = slot.stop
        if stop is not None:
            self.forget_stop(slot)
        policy = _NEVER_AGAIN if spec.delivery is Delivery.AT_MOST_ONCE else spec.retry
        if stop is Stop.CANCELLED:
            return CANCELLED
        if stop is Stop.SHUTDOWN and isinstance(error, asyncio.CancelledError):
            if policy is not _NEVER_AGAIN:
                return RELEASED
            error = RuntimeError("stopped while it was running, and it must not run twice")
        elif stop is Stop.HARD_LIMIT and isinstance(error, asyncio.CancelledError):
            error = TimeoutError(f"the hard time limit of {spec.timeout.hard:g} s has passed")
        elif isinstance(error, asyncio.CancelledError):
            error = RuntimeError("the handler cancelled itself")
        elif isinstance(error, ItemsFailed):  # of a task of its own, not of a chunk: it fails as its first item did
            error = next(iter(error.errors.values()), error)
        draw = self._dice.random()
        return outcome_of(error, policy, attempt=attempt, draw=draw, chars_max=self._error_chars_max)

    def forget_stop(self, slot: Slot) -> None:
        """Leave a stop behind that was meant for what ran before."""
        slot.stop = None
        assert slot.work is not None
        while slot.work.cancelling():
            slot.work.uncancel()

    def _soft_limit(self, call: Limited) -> None:
        assert isinstance(call, Slot) and call.work is not None
        if call.thread is not None:
            call.thread.interrupt(SoftTimeout)
        else:
            call.soft_due = True
            call.work.cancel()

    def _hard_limit(self, call: Limited) -> None:
        assert isinstance(call, Slot)
        self.stop(call, Stop.HARD_LIMIT)

    def stop(self, slot: Slot, stop: Stop) -> None:
        """Cancel what a slot runs, and abandon it if that does not end it."""
        assert slot.work is not None and slot.runs is not None
        if slot.stop is not None:
            if stop is Stop.CANCELLED:
                slot.stop = stop  # it was told to stop before: now it does not run again either
            return
        slot.stop, slot.soft_due = stop, False
        if not slot.is_calling:
            return  # cancelling would end the slot itself; the next call does not begin
        # A thread cannot be ended. Its slot can: the await below it is cancelled, the thread is given up.
        if slot.thread is not None and slot.thread.abandon():
            self._thread_given_up(slot.runs)
        slot.work.cancel()
        asyncio.get_running_loop().call_later(self.abandon_after_s, self._look_if_it_hangs, slot, slot.turn)

    def _look_if_it_hangs(self, slot: Slot, turn: int) -> None:
        if slot.turn == turn and slot.runs is not None:
            self._hangs(slot)

    def close(self) -> None:
        """Let idle threads end."""
        self._threads.close()
