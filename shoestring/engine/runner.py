"""Runs handlers: a fixed number of slots, each a coroutine that takes the next task, runs it, and looks again.

A slot takes work itself instead of being handed it, so a task that never waits costs no switch and no asyncio.Task of
its own. One slot is woken at a time: when its handler first waits, it wakes the next slot; as long as handlers do
not wait, one slot does everything. `wake` clears before the woken slot looks, so no wake-up is lost.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any, Final

import msgspec

from shoestring.core.clock import Clock, Dice
from shoestring.core.errors import DiskFull
from shoestring.core.lanes import Lane, Scheduler, blocked_until_ms
from shoestring.core.lifecycle import Event
from shoestring.core.model import Charge, Delivery
from shoestring.core.outcome import Outcome
from shoestring.engine.calls import Calls, Slot, Stop
from shoestring.engine.chunks import ChunkRunner
from shoestring.engine.committer import Committer
from shoestring.engine.completer import Completer
from shoestring.engine.journal import Journal
from shoestring.engine.records import NO_EXTRA, Task
from shoestring.engine.register import Register
from shoestring.engine.registry import HandlerSpec
from shoestring.log import log

#: Tasks a slot runs in a row before the loop gets a turn: at 5 us each, commits and sockets wait half a millisecond.
_IN_A_ROW: Final = 100
#: Tasks that never wait are so short that some of them share one look at the clock, which costs a tenth of each.
_SAME_INSTANT: Final = 16
#: A task that was running at this many unclean deaths of the daemon runs alone; at one more it is discarded.
CRASHES_ALONE: Final = 2

#: While the disk is full an at-most-once task cannot be marked, and is put off by this.
_DISK_FULL_MS: Final = 1_000


class Runner:
    def __init__(
        self,
        *,
        clock: Clock,
        rng: Dice,
        scheduler: Scheduler,
        committer: Committer,
        completer: Completer,
        register: Register | None,
        slots: int,
        threads: int,
        abandon_after_s: float,
        error_chars_max: int,
        feed: Callable[[Lane], None],
        mark_started: Callable[[Task], Coroutine[Any, Any, None]],
        end_unrunnable: Callable[[Task], bool],
        chunks: Callable[[Runner], ChunkRunner],
        journal: Journal,
    ) -> None:
        self.clock = clock
        self.scheduler = scheduler
        self.completer = completer
        self.committer = committer
        self.slots: dict[int, Slot] = {}
        self.quiet = False
        self.abandoned = 0
        self._journal = journal
        self._register = register
        self._limit = slots
        self.calls = Calls(
            dice=rng,
            threads=threads,
            abandon_after_s=abandon_after_s,
            error_chars_max=error_chars_max,
            first_wait=self.wake,
            hangs=self._abandon,
            thread_given_up=self._count_abandoned,
        )
        self._feed = feed
        self._mark_started = mark_started
        self._end_unrunnable = end_unrunnable
        self._chunks = chunks(self)
        self._resting: list[Slot] = []
        self._stirring = False
        self._numbers = 0
        self._alone: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self.failed: asyncio.Future[None] | None = None  # gets what kills a slot: a bug, or a storage error

    # -- slots ----------------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have a slot look for work, if there can be any."""
        if self._stirring or self.quiet or not self.scheduler.turns:
            return
        if self._resting:
            slot = self._resting.pop()
            assert slot.rest is not None
            slot.rest.set_result(None)
        elif len(self.slots) < self._limit:
            slot = Slot(self._numbers)
            self._numbers += 1
            self.slots[slot.number] = slot
            slot.work = asyncio.get_running_loop().create_task(self._work(slot), name=f"slot-{slot.number}")
            slot.work.add_done_callback(self._slot_ended)
        else:
            return
        self._stirring = True

    def _slot_ended(self, work: asyncio.Task[None]) -> None:
        if (
            not work.cancelled()
            and (error := work.exception()) is not None
            and self.failed is not None
            and not self.failed.done()
        ):
            self.failed.set_exception(error)

    async def _work(self, slot: Slot) -> None:
        self._stirring = False
        in_a_row = now_ms = 0
        slot.waited = True
        while not slot.abandoned:
            if slot.waited or in_a_row % _SAME_INSTANT == 0:
                now_ms = self.clock.now_ms()
                slot.waited = False
            found = None if self.quiet else self.scheduler.next(now_ms)
            if found is None:
                await self._rest(slot)
                in_a_row = 0
                continue
            assert isinstance(found, Task)
            lane = found.lane
            if not lane.window.complete:
                self._feed(lane)
            slot.runs = found
            if slot.stop is not None:
                self.calls.forget_stop(slot)
            if self._register is not None:
                self._register.mark(slot.number, lane.id, found.rank)
            if self._journal.on:
                self._journal.started(found)
            await self._attempt(slot, found)
            in_a_row += 1
            if in_a_row >= _IN_A_ROW:
                in_a_row = 0
                slot.runs = None  # it ended: who stops what runs does not mean this slot
                if self._register is not None:
                    self._register.clear(slot.number)  # nor does a crash that comes now
                await asyncio.sleep(0)

    async def _rest(self, slot: Slot) -> None:
        slot.runs = None
        if self._register is not None:
            self._register.clear(slot.number)
        slot.rest = asyncio.get_running_loop().create_future()
        self._resting.append(slot)
        await slot.rest
        slot.rest = None
        self._stirring = False

    async def _attempt(self, slot: Slot, task: Task) -> None:
        spec = task.handler.spec
        assert spec is not None
        if task.extra is not NO_EXTRA and await self._prepare(slot, task):
            self._ended(task)
            return
        if task.chunk is not None:
            slot.waited = True
            await self._chunks.run(slot, task, spec)
        else:
            self.charge(task.lane, 1)
            outcome = await self._call_task(slot, task, spec)
            if slot.abandoned:
                return
            if outcome is None:
                self.completer.completed(task)
            else:
                self.completer.apply(task, outcome)
        if not slot.abandoned:
            self._ended(task)

    async def _prepare(self, slot: Slot, task: Task) -> bool:
        """See to what few tasks have; True if the task ended without running."""
        if self._end_unrunnable(task):
            return True
        if task.extra.crashes >= CRASHES_ALONE:
            self.scheduler.exclusive = True
            if self.scheduler.running > 1:
                # It does not run yet: a death while it waits must not count against it.
                if self._register is not None:
                    self._register.clear(slot.number)
                self._alone = asyncio.get_running_loop().create_future()
                await self._alone
                if self._register is not None:
                    self._register.mark(slot.number, task.lane.id, task.rank)
        return False

    def _ended(self, task: Task) -> None:
        self.scheduler.ended(task)
        if self.scheduler.exclusive:
            if task.extra.crashes >= CRASHES_ALONE:
                self.scheduler.exclusive = False
                self.wake()
            elif self.scheduler.running == 1 and self._alone is not None and not self._alone.done():
                self._alone.set_result(None)
        if self._drained is not None and self.scheduler.running == 0 and not self._drained.done():
            self._drained.set_result(None)

    async def _call_task(self, slot: Slot, task: Task, spec: HandlerSpec) -> Outcome | None:
        """Run a plain task; None means it completed."""
        if spec.delivery is Delivery.AT_MOST_ONCE:
            try:
                await self._mark_started(task)
            except DiskFull as error:
                return _not_begun(task, Outcome(Event.SNOOZE, _DISK_FULL_MS, str(error)))
        try:
            args, kwargs = spec.arguments.decode(task.body)
            await self.calls.call(slot, spec, args, kwargs)
        except BaseException as error:
            if isinstance(error, GeneratorExit | KeyboardInterrupt):
                raise
            outcome = self.calls.outcome_of(slot, spec, error, attempt=task.attempt + 1)
            return _not_begun(task, outcome) if task.extra.started else outcome
        return None

    # -- limits ---------------------------------------------------------------------------------------------------

    def charge(self, lane: Lane, items: int) -> None:
        """Take tokens for what is about to run; the caller has seen that the lane is not blocked."""
        limit = lane.queue.config.limit
        if limit is not None and limit.charge is Charge.RUN and lane.bucket is not None:
            lane.bucket = lane.bucket.spend(items, self.clock.now_ms())
            self.committer.gathering.buckets.add(lane)

    def is_blocked(self, lane: Lane) -> bool:
        now_ms = self.clock.now_ms()
        return self.quiet or blocked_until_ms(lane, now_ms) > now_ms

    def _count_abandoned(self, task: Task) -> None:
        task.handler.abandoned += 1
        self.abandoned += 1
        log.warning("call_abandoned", handler=task.handler.name, task_id=task.id, abandoned=task.handler.abandoned)

    def _abandon(self, slot: Slot) -> None:
        """Give up a coroutine that swallows its cancellation: its task gets its outcome, its slot is replaced."""
        assert slot.runs is not None
        task, spec = slot.runs, slot.runs.handler.spec
        assert spec is not None
        slot.abandoned = True
        del self.slots[slot.number]
        if self._register is not None:
            self._register.clear(slot.number)  # its task has its outcome, and may not be blamed for what comes
        self._count_abandoned(task)
        if task.chunk is not None:
            self._chunks.abandoned(slot, task, spec)
        else:
            outcome = self.calls.outcome_of(slot, spec, asyncio.CancelledError(), attempt=task.attempt + 1)
            self.completer.apply(task, outcome)
        self._ended(task)
        self.wake()

    # -- stopping -------------------------------------------------------------------------------------------------

    def running(self) -> list[Slot]:
        return [slot for slot in self.slots.values() if slot.runs is not None and slot.rest is None]

    async def wait_drained(self, timeout_s: float | None) -> bool:
        """Wait until nothing runs; False if that took longer than `timeout_s`."""
        if self.scheduler.running == 0:
            return True
        self._drained = asyncio.get_running_loop().create_future()
        done, _ = await asyncio.wait([self._drained], timeout=timeout_s)
        return bool(done)

    def release_running(self) -> None:
        """Cancel what still runs at the end of the grace; the tasks go back to where they were."""
        for slot in self.running():
            self.calls.stop(slot, Stop.SHUTDOWN)

    async def close(self) -> None:
        """End the slots. What still runs comes to no outcome: after a failure nobody is there to write it down."""
        works = [slot.work for slot in self.slots.values() if slot.work is not None]
        for slot in self.slots.values():
            slot.abandoned = True
        for work in works:
            work.cancel()
        if works:
            await asyncio.wait(works, timeout=self.calls.abandon_after_s)
        self.calls.close()


def _not_begun(task: Task, outcome: Outcome) -> Outcome:
    """Let an at-most-once task run again that put itself off: it says that it has done nothing yet.

    The mark that it was started is in its row, so the row is written anew: it waits among the delayed.
    """
    if outcome.event not in (Event.SNOOZE, Event.RELEASE):
        return outcome
    task.extra = msgspec.structs.replace(task.extra, started=False)
    return dataclasses.replace(outcome, event=Event.SNOOZE)
