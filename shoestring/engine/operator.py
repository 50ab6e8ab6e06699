"""What people do to single tasks: cancel them wherever they stand, and enqueue discarded ones again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from shoestring.core.errors import NotFound, ShoestringError
from shoestring.core.lifecycle import Event, State
from shoestring.core.model import Durability, Entry, Options, TaskState, TaskView, priority_of
from shoestring.core.outcome import Outcome
from shoestring.engine.calls import Stop
from shoestring.engine.committer import Answers
from shoestring.engine.records import Task
from shoestring.store import views
from shoestring.store.batch import Batch
from shoestring.store.db import Db

if TYPE_CHECKING:
    from shoestring.engine.engine import Engine

_REPLAY_AT_ONCE: Final = 500


class Operator:
    def __init__(self, *, engine: Engine, db: Db) -> None:
        self._engine = engine
        self._db = db

    async def cancel_task(self, task_id: int) -> TaskView:
        """Cancel a task wherever it stands; NotFound if it ended already. Returns it as it was.

        A running one is told to stop, and comes to its outcome when its handler has.
        """
        engine = self._engine
        engine.dispatcher.doomed.add(task_id)  # from here on it is not taken into memory behind our back
        try:
            view = await engine.task(task_id)
            if view.state is TaskState.DISCARDED:
                raise NotFound(f"task {task_id} was discarded; there is nothing to cancel.")
            task = engine.owned.get(task_id)
            if task is None or task.ended:
                await engine.committer.flush()  # where it stands now is in the file then
                task = engine.owned.get(task_id)
            if task is None:
                await self._cancel_stored(task_id)
            else:
                self._cancel_owned(task)
            await engine.committer.flush()
        finally:
            engine.dispatcher.doomed.discard(task_id)
        return view

    def _cancel_owned(self, task: Task) -> None:
        for slot in self._engine.runner.running():
            if slot.runs is task:
                if task.chunk is not None:
                    task.chunk.cancelled = True
                self._engine.runner.calls.stop(slot, Stop.CANCELLED)
                return
        if not task.ended:
            self._engine.dispatcher.take_out(task.lane, {task.rank})
            self._engine.completer.apply(task, Outcome(Event.CANCEL), state=State.READY)

    async def _cancel_stored(self, task_id: int) -> None:
        engine = self._engine
        found = await self._db.read(views.find_stored, task_id)
        if (task := engine.owned.get(task_id)) is not None:
            self._cancel_owned(task)
            return
        if found is None:
            raise NotFound(f"task {task_id} ended a moment ago.")
        engine.completer.cancel_stored(task_id, found)
        await engine.committer.flush()
        engine.dispatcher.count_again(engine.books.lanes_by_id[found.lane])

    async def replay(
        self,
        *,
        task_ids: Sequence[int] = (),
        handler: str | None = None,
        queue: str | None = None,
        everything: bool = False,
    ) -> int:
        """Enqueue discarded tasks again as new ones; returns how many. An item of a job runs as a task of its own.

        Each slice is one transaction: the discarded rows go as the new tasks come. Those that are refused stay; if all
        are, the first refusal is raised.
        """
        await self._engine.committer.flush()
        ids = list(task_ids) if task_ids else None
        if ids is None and handler is None and queue is None and not everything:
            return 0
        after, count = 0, 0
        refusal: ShoestringError | None = None
        while True:
            rows = await self._db.view(views.discarded_to_replay, ids, queue, handler, after, _REPLAY_AT_ONCE)
            if not rows:
                break
            after = rows[-1].id
            await self._engine.intake.learn_lanes(list({(row.queue, row.user) for row in rows}))
            entries = [self._as_entry(row) for row in rows]
            future = self._engine.submit(entries)
            answers = await self._with_deletes(future, rows)
            count += sum(isinstance(answer, int) for answer in answers)
            refusal = refusal or next((each for each in answers if isinstance(each, ShoestringError)), None)
        if not count and refusal is not None:
            raise refusal
        if not count and ids is not None:
            raise NotFound(f"none of these is among the discarded tasks: {', '.join(map(str, ids))}.")
        return count

    async def _with_deletes(self, future: asyncio.Future[Answers], rows: list[views.DiscardedRow]) -> Answers:
        if future.done():
            return future.result()
        # Admitted just now, in this very transaction: whether an answer is an error is known already.
        submission = self._engine.committer.gathering.submissions[-1]
        gone = [
            row.id
            for row, answer in zip(rows, submission.answers, strict=True)
            if not isinstance(answer, ShoestringError)
        ]
        self._engine.committer.gathering.batch.discarded_gone += gone
        take_back = submission.undo
        assert take_back is not None

        def undo(batch: Batch) -> None:
            take_back(batch)
            batch.discarded_gone = [each for each in batch.discarded_gone if each not in gone]

        submission.undo = undo
        answers = await future
        self._engine.books.discarded_kept -= len(gone)
        return answers

    def _as_entry(self, row: views.DiscardedRow) -> Entry:
        body = row.body.encode()
        spec = self._engine.books.registry.handlers.get(row.handler)
        if row.item is not None and spec is not None and spec.arguments.item_name is not None:
            item = f"[{row.item}]" if spec.batch else row.item
            name = msgspec.json.encode(spec.arguments.item_name).decode()
            rest = row.body.strip()[1:]
            body = f"{{{name}:{item}{'' if rest == '}' else ','}{rest}".encode()
        # The discarded row goes with the commit that stores the task: not one that was never meant to be stored.
        is_volatile = spec is not None and spec.durability is Durability.VOLATILE
        options = Options(
            user=row.user, queue=row.queue, priority=priority_of(row.rank),
            durability=Durability.RELAXED if is_volatile else None,
        )  # fmt: skip
        return Entry(row.handler, msgspec.Raw(body), options)
