"""Planted bugs, each of a kind that queues have had. A simulator that misses these would miss the next one.

Each patches the shipped code while its context is open, in as little as possible; its docstring says what it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final

from shoestring.core.errors import DiskFull, ShoestringError
from shoestring.core.lanes import Lane, Park, Queue, Runnable, Scheduler
from shoestring.core.lifecycle import BURNS_ATTEMPT, Event
from shoestring.core.model import Page
from shoestring.core.outcome import Outcome
from shoestring.core.signals import Scope
from shoestring.core.window import Window
from shoestring.engine import completer
from shoestring.engine.books import Books
from shoestring.engine.calls import Calls, Slot
from shoestring.engine.committer import Committer, Gathering, Haste, Losers, Submission
from shoestring.engine.completer import Completer
from shoestring.engine.dispatcher import Dispatcher
from shoestring.engine.engine import Engine
from shoestring.engine.intake import Intake
from shoestring.engine.puller import Puller
from shoestring.engine.records import Job, Task
from shoestring.engine.registry import HandlerSpec
from shoestring.engine.runner import Runner
from shoestring.engine.sweeper import Sweeper
from shoestring.store import opening
from shoestring.store.batch import Batch
from shoestring.store.tasks import Loaded

Mutant = Callable[[], AbstractContextManager[None]]

MUTANTS: Final[dict[str, Mutant]] = {}


def _planted(mutant: Mutant) -> Mutant:
    MUTANTS[mutant.__name__] = mutant
    return mutant


@contextmanager
def _patched(owner: object, name: str, value: object) -> Iterator[None]:
    shipped = vars(owner)[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, shipped)


def _nothing(*_args: object, **_options: object) -> None:
    """Stand in for a step that somebody forgot."""


# -- waking and waiting -------------------------------------------------------------------------------------------


@_planted
def wakeup_lost() -> AbstractContextManager[None]:
    """The committer clears its flag after it committed: who wanted a commit meanwhile waits for ever."""

    async def run(self: Committer) -> None:
        while True:
            await self._wake.wait()
            await self._commit()
            self._wake.clear()
            if self._haste is Haste.NONE:
                self._idle.set()

    return _patched(Committer, "run", run)


@_planted
def gate_not_passed_on() -> AbstractContextManager[None]:
    """A call of a handler ends and the lanes that waited for its room are not brought back."""
    return _patched(Scheduler, "_rouse", lambda _self, gate, queue: gate.waiting.pop(queue))


@_planted
def gate_leaked() -> AbstractContextManager[None]:
    """A task that is put back after its call keeps its place at its handler's gate."""
    shipped = Scheduler.ended

    def ended(self: Scheduler, found: Runnable) -> None:
        shipped(self, found)
        found.gate.running += isinstance(found, Task) and not found.ended

    return _patched(Scheduler, "ended", ended)


@_planted
def slot_leaked() -> AbstractContextManager[None]:
    """A call is given up because it swallows its cancellation, and what it occupied is not given back."""
    shipped = Runner._abandon

    def abandon(self: Runner, slot: Slot) -> None:
        with _patched(Runner, "_ended", _nothing):
            shipped(self, slot)

    return _patched(Runner, "_abandon", abandon)


@_planted
def limit_ignored() -> AbstractContextManager[None]:
    """A queue never counts as full, however many of its tasks run."""
    return _patched(Queue, "is_full", False)


@_planted
def park_not_stored() -> AbstractContextManager[None]:
    """A park holds in memory and is not in the file: it is forgotten with a restart."""
    shipped = Books.park

    def park(self: Books, lane: Lane, scope: Scope, park: Park) -> None:
        shipped(self, lane, scope, park)
        self._committer.gathering.batch.parks.clear()

    return _patched(Books, "park", park)


@_planted
def tokens_not_taken() -> AbstractContextManager[None]:
    """What runs is not charged to its user's bucket."""
    return _patched(Runner, "charge", _nothing)


# -- what is in memory of what is on disk -------------------------------------------------------------------------


@_planted
def rest_not_given_up() -> AbstractContextManager[None]:
    """A full window leaves a task to the disk, and still counts as complete: nobody reads it."""
    shipped = Window._give_up_the_rest

    def give_up_the_rest(self: Window[Any, Any], key: Any) -> bool:
        held = shipped(self, key)
        self.complete = True
        return held

    return _patched(Window, "_give_up_the_rest", give_up_the_rest)


@_planted
def trim_leaves_cursor() -> AbstractContextManager[None]:
    """A window gives tasks back to the disk and goes on reading behind them."""
    shipped = Window.trim

    def trim(self: Window[Any, Any]) -> list[Any]:
        cursor = self.cursor
        dropped = shipped(self)
        self.cursor = cursor
        return dropped

    return _patched(Window, "trim", trim)


class _Blind(dict[int, Task]):
    def __contains__(self, _key: object) -> bool:
        return False


@_planted
def owned_ignored() -> AbstractContextManager[None]:
    """A load takes in tasks that are in memory already: they run twice."""
    shipped = Dispatcher._take_in

    def take_in(self: Dispatcher, lane: Lane, loaded: Loaded, limit: int) -> None:
        owned, self._owned = self._owned, _Blind(self._owned)
        shipped(self, lane, loaded, limit)
        owned.clear()
        owned.update(self._owned)
        self._owned = owned

    return _patched(Dispatcher, "_take_in", take_in)


@_planted
def disowned_too_early() -> AbstractContextManager[None]:
    """A task is forgotten with its outcome, before that is committed: a read that was under way brings it back."""
    shipped = Completer.completed

    def completed(self: Completer, task: Task) -> None:
        shipped(self, task)
        self._committer.gathering.ended.remove(task.id)
        del self._committer._owned[task.id]

    return _patched(Completer, "completed", completed)


# -- what is written, and when ------------------------------------------------------------------------------------


@_planted
def answered_before_commit() -> AbstractContextManager[None]:
    """Producers are answered when their commit begins, not when it is through."""
    shipped = Committer._commit

    async def commit(self: Committer) -> None:
        for each in self.gathering.submissions:
            if not each.durable and not each.future.done():
                each.future.set_result(each.answers)
        await shipped(self)

    return _patched(Committer, "_commit", commit)


@_planted
def outcomes_dropped() -> AbstractContextManager[None]:
    """What ended is forgotten when its commit meets a full disk."""
    shipped = Committer._survive_full_disk

    async def survive(self: Committer, gathered: Gathering, error: DiskFull) -> None:
        await shipped(self, gathered, error)
        self.gathering.batch.ready_gone.clear()

    return _patched(Committer, "_survive_full_disk", survive)


@_planted
def undo_skipped() -> AbstractContextManager[None]:
    """A full disk refuses a submission, and what its admission counted is not taken back."""
    shipped = Submission.refuse

    def refuse(self: Submission, batch: Batch, error: DiskFull) -> None:
        self.undo = _nothing
        shipped(self, batch, error)

    return _patched(Submission, "refuse", refuse)


@_planted
def resurrected() -> AbstractContextManager[None]:
    """Two batches become one after a full disk: what the later one deletes is inserted after that by the earlier."""
    shipped = Batch.absorb

    def absorb(self: Batch, later: Batch) -> None:
        self.ready_gone += later.ready_gone
        later.ready_gone = []
        shipped(self, later)

    return _patched(Batch, "absorb", absorb)


@_planted
def promotion_keeps_row() -> AbstractContextManager[None]:
    """A task that came due is in `ready`, and stays in `delayed` as well."""
    shipped = Dispatcher._promote

    async def promote(self: Dispatcher, now_ms: int) -> None:
        await shipped(self, now_ms)
        self._committer.gathering.batch.delayed_gone.clear()

    return _patched(Dispatcher, "_promote", promote)


@_planted
def unique_not_freed() -> AbstractContextManager[None]:
    """A task ends and keeps its unique key."""
    return _patched(Completer, "_free_unique", _nothing)


@_planted
def loser_counted() -> AbstractContextManager[None]:
    """A task that lost its unique key to another at the commit stays in the books in memory."""
    shipped = Engine._settled

    def settled(self: Engine, batch: Batch, _losers: Losers) -> None:
        shipped(self, batch, {})

    return _patched(Engine, "_settled", settled)


# -- attempts, crashes, time --------------------------------------------------------------------------------------


@_planted
def attempts_off_by_one() -> AbstractContextManager[None]:
    """A task is tried once more than its handler allows."""
    shipped = Calls.outcome_of

    def outcome_of(self: Calls, slot: Slot, spec: HandlerSpec, error: BaseException, *, attempt: int) -> Outcome:
        return shipped(self, slot, spec, error, attempt=max(1, attempt - 1))

    return _patched(Calls, "outcome_of", outcome_of)


@_planted
def release_burns_attempt() -> AbstractContextManager[None]:
    """A task that is told to wait has one attempt less."""
    return _patched(completer, "BURNS_ATTEMPT", BURNS_ATTEMPT | {Event.RELEASE})


@_planted
def crash_not_counted() -> AbstractContextManager[None]:
    """A start does not look who was running when the daemon died: what kills it does so for ever."""
    return _patched(opening, "_count_crash", lambda _conn, _suspects: 0)


@_planted
def start_not_marked() -> AbstractContextManager[None]:
    """An at-most-once task runs without a mark in the file: after a crash it runs again."""

    async def mark_started(_self: Engine, _task: Task) -> None:
        pass

    return _patched(Engine, "_mark_started", mark_started)


@_planted
def expiry_ignored() -> AbstractContextManager[None]:
    """A task that expired while it waited is run."""
    shipped = Engine._unrunnable

    def unrunnable(self: Engine, task: Task) -> Outcome | None:
        outcome = shipped(self, task)
        return None if outcome is not None and outcome.event is Event.EXPIRE else outcome

    return _patched(Engine, "_unrunnable", unrunnable)


# -- fan-outs -----------------------------------------------------------------------------------------------------


@_planted
def progress_not_stored() -> AbstractContextManager[None]:
    """The books count an item as done, and the chunk's own progress is not written with them."""
    shipped = Gathering.freeze

    def freeze(self: Gathering) -> Batch:
        self.chunks.clear()
        return shipped(self)

    return _patched(Gathering, "freeze", freeze)


@_planted
def cursor_apart_from_page() -> AbstractContextManager[None]:
    """A page's items are committed first and its cursor after them: a crash in between pulls the page twice."""

    async def store(self: Puller, job: Job, page: Page[object], items: bytes) -> None:
        assert self.jobs is not None
        job.next_pull_at_ms = self._clock.now_ms() + job.spec.every_ms
        try:
            await self.jobs.add_items(job, items, lambda: None)
        except ShoestringError:
            job.next_pull_at_ms += 5_000
            return
        job.cursor, job.pulls_failed = page.next, 0
        if page.next is None:
            self.jobs.seal_job(job, None)
        await self.jobs._committed(None)

    return _patched(Puller, "_store", store)


@_planted
def then_forgotten() -> AbstractContextManager[None]:
    """A job is done and what was to run then is not stored."""
    return _patched(Intake, "admit_internal", _nothing)


@_planted
def purge_forgotten() -> AbstractContextManager[None]:
    """A cancelled job's rows are left in the file."""
    return _patched(Sweeper, "purge", _nothing)
