"""Runs the items of a chunk, one after the other or all at once, each with an outcome of its own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec

from shoestring.core.errors import ArgumentError
from shoestring.core.lifecycle import Event
from shoestring.core.model import JobState
from shoestring.core.signals import ItemsFailed
from shoestring.engine.books import Books
from shoestring.engine.records import Job, Task
from shoestring.engine.registry import HandlerSpec

if TYPE_CHECKING:
    from shoestring.engine.calls import Slot
    from shoestring.engine.runner import Runner

#: Items run in a row before the loop gets a turn.
_IN_A_ROW: Final = 100


class ChunkRunner:
    def __init__(self, *, runner: Runner, books: Books) -> None:
        self._runner = runner
        self._books = books
        self._at: dict[int, tuple[Job, int, str]] = {}  # by slot: the item that runs

    async def run(self, slot: Slot, task: Task, spec: HandlerSpec) -> None:
        """Run the items that may run now, until the chunk is through or something holds its lane."""
        assert task.chunk is not None and task.job is not None
        completer = self._runner.completer
        job = self._books.jobs.get(task.job)
        if job is None or job.state is JobState.CANCELLED:
            completer.forget_row(task)
            return
        raw = msgspec.json.decode(task.chunk.items, type=list[msgspec.Raw])
        indexes = task.chunk.left.runnable(now_ms=self._runner.clock.now_ms())
        try:
            items = spec.arguments.decode_items(task.chunk.items)
            shared = spec.arguments.decode_shared(task.body)
        except ArgumentError as error:
            self._fail(slot, task, job, raw, dict.fromkeys(indexes, error))
        else:
            if spec.batch:
                await self._run_batch(slot, task, job, raw, items, indexes, shared)
            else:
                await self._run_items(slot, task, job, raw, items, indexes, shared)
        if not slot.abandoned:
            completer.chunk_paused(task)

    async def _run_items(
        self, slot: Slot, task: Task, job: Job, raw: list[msgspec.Raw], items: list[object], indexes: list[int],
        shared: dict[str, object],
    ) -> None:  # fmt: skip
        runner, spec, chunk = self._runner, task.handler.spec, task.chunk
        assert spec is not None and chunk is not None
        for count, index in enumerate(indexes):
            if runner.is_blocked(task.lane) or job.state is JobState.CANCELLED or chunk.cancelled:
                return
            runner.charge(task.lane, 1)
            self._at[slot.number] = (job, index, bytes(raw[index]).decode())
            try:
                await runner.calls.call(slot, spec, (items[index],), shared)
            except BaseException as error:
                if isinstance(error, GeneratorExit | KeyboardInterrupt):
                    raise
                if slot.abandoned or not self._fail(slot, task, job, raw, {index: error}):
                    return
            else:
                if slot.abandoned or job.is_finished:  # cancelled while it ran: counted already
                    return
                runner.completer.item_done(task, job, index)
            if count % _IN_A_ROW == _IN_A_ROW - 1:
                await asyncio.sleep(0)

    async def _run_batch(
        self, slot: Slot, task: Task, job: Job, raw: list[msgspec.Raw], items: list[object], indexes: list[int],
        shared: dict[str, object],
    ) -> None:  # fmt: skip
        runner, spec = self._runner, task.handler.spec
        assert spec is not None
        if runner.is_blocked(task.lane) or not indexes:
            return
        runner.charge(task.lane, len(indexes))
        self._at[slot.number] = (job, indexes[0], bytes(raw[indexes[0]]).decode())
        errors: dict[int, BaseException] = {}
        try:
            await runner.calls.call(slot, spec, ([items[index] for index in indexes],), shared)
        except ItemsFailed as failed:
            errors = {indexes[place]: error for place, error in failed.errors.items() if 0 <= place < len(indexes)}
        except BaseException as error:
            if isinstance(error, GeneratorExit | KeyboardInterrupt):
                raise
            errors = dict.fromkeys(indexes, error)
        if slot.abandoned:
            return
        for index in indexes:
            if index not in errors and job.state is not JobState.CANCELLED:
                runner.completer.item_done(task, job, index)
        self._fail(slot, task, job, raw, errors)

    def _fail(self, slot: Slot, task: Task, job: Job, raw: list[msgspec.Raw], errors: dict[int, BaseException]) -> bool:
        """Write down what failed items came to; False if the chunk should not go on now."""
        spec, chunk = task.handler.spec, task.chunk
        assert spec is not None and chunk is not None
        go_on, stop = True, slot.stop
        for index, error in errors.items():
            slot.stop = stop  # one call ended, and why holds for each of its items
            attempt = chunk.left.attempts.get(index, 0) + 1
            outcome = self._runner.calls.outcome_of(slot, spec, error, attempt=attempt)
            if outcome.scope is not None:
                self._runner.completer.park(task, outcome)
            if outcome.event in (Event.RELEASE, Event.CANCEL):
                go_on = False  # parked, stopping, or its job was cancelled: the item stays as it was
            elif job.state is not JobState.CANCELLED:
                self._runner.completer.item_failed(task, job, index, bytes(raw[index]).decode(), outcome)
        return go_on

    def abandoned(self, slot: Slot, task: Task, spec: HandlerSpec) -> None:
        """Give the item that hangs its outcome and put the rest of the chunk back."""
        assert task.chunk is not None
        job, index, item = self._at[slot.number]
        attempt = task.chunk.left.attempts.get(index, 0) + 1
        outcome = self._runner.calls.outcome_of(slot, spec, asyncio.CancelledError(), attempt=attempt)
        if outcome.event not in (Event.RELEASE, Event.CANCEL) and job.state is not JobState.CANCELLED:
            self._runner.completer.item_failed(task, job, index, item, outcome)
        self._runner.completer.chunk_paused(task)
