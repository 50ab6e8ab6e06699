"""The handlers and sources of the simulated app. They act as their subjects' scripts say, and the world notes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from shoestring.core.model import Charge, Delivery, Durability, Limit, Page, QueueConfig, Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import Discard, ItemsFailed, RateLimited, RetryLater, Snooze, SoftTimeout
from shoestring.core.signature import Arguments
from shoestring.engine.calls import Stop
from shoestring.engine.records import Chunk
from shoestring.engine.registry import HandlerSpec, Registry, SourceSpec
from tests.sim import invariants
from tests.sim.loop import Killed
from tests.sim.script import Act, Step, Subject
from tests.sim.world import Call, End, World


class Broken(Exception):
    """The handler failed."""


class Hopeless(Exception):
    """The handler failed in a way its policy does not retry."""


QUEUES: Final = {
    "default": QueueConfig(),
    "narrow": QueueConfig(concurrency=2),
    "paced": QueueConfig(limit=Limit(capacity=6, rate=8, charge=Charge.RUN)),
    "charged": QueueConfig(limit=Limit(capacity=25, rate=5, charge=Charge.ENQUEUE)),
    "fans": QueueConfig(low_water=12),
}
_RETRY: Final = RetryPolicy(max_attempts=4, base=0.5, cap=4.0, give_up_on=(Hopeless,))
_LIMITS: Final = Timeout(soft=None, hard=4.0)


@dataclass(slots=True)
class SimJob:
    """A fan-out of the simulation: its items by page, and what its source does on the way."""

    number: int
    pages: list[list[int]]
    troubles: dict[int, list[Step]] = field(default_factory=dict)  # by page
    job_id: int | None = None
    opened: int = 0  # what was committed when the producer was told
    lost: bool = False  # with a power cut
    streamed: bool = False
    then: int | None = None
    every_ms: int = 0
    expires: bool = False
    refused: bool = False
    maybe_cancelled: bool = False
    #: Slices the producer was told are stored, and what was committed then.
    taken: dict[int, int] = field(default_factory=dict)


class Stage:
    """Builds a registry whose handlers belong to one world."""

    def __init__(self, world: World, jobs: dict[int, SimJob]) -> None:
        self._world = world
        self._jobs = jobs

    def registry(self, *, without: Sequence[str] = ()) -> Registry:
        """Return the app's declarations; `without` some handlers, as if the app had been changed."""
        found = Registry()
        for spec in self._specs():
            if spec.name not in without:
                found.add_handler(spec)
        found.add_source(
            SourceSpec(
                name="pages", fn=self._pages, arguments=_ARGUMENTS["_pages"], timeout=Timeout(hard=3.0), retry=_RETRY
            )
        )
        return found

    def _specs(self) -> list[HandlerSpec]:
        one, item = self._one, self._item

        def spec(name: str, queue: str, fn: Callable[..., Any] = one, **more: Any) -> HandlerSpec:
            settings = {"retry": _RETRY, "timeout": _LIMITS, **more}
            arguments = _ARGUMENTS[fn.__name__]
            return HandlerSpec(name=name, fn=fn, is_async=True, arguments=arguments, queue=queue, **settings)

        return [
            spec("plain", "default"),
            spec("gated", "default", concurrency=1),
            spec("timed", "default", timeout=Timeout(soft=1.0, hard=2.0), concurrency=3),
            spec("planned", "default", retry=RetryPolicy(schedule=("200ms", "1s"), give_up_on=(Hopeless,))),
            spec("careless", "default", durability=Durability.VOLATILE),
            spec("careful", "narrow", durability=Durability.DURABLE),
            spec("narrow", "narrow"),
            spec("once", "default", delivery=Delivery.AT_MOST_ONCE, concurrency=4),
            spec("paced", "paced"),
            spec("charged", "charged"),
            spec("fickle", "default"),
            spec("item", "fans", item, concurrency=3, timeout=Timeout(soft=1.0, hard=2.0)),
            spec("paced_item", "paced", item),
            spec("batch", "fans", self._batch, batch=True, concurrency=2),
        ]

    # -- handlers -------------------------------------------------------------------------------------------------

    async def _one(self, n: int) -> None:
        await self._perform([n], batch=False)

    async def _item(self, n: int, *, tag: str) -> None:
        assert tag == "shared"
        await self._perform([n], batch=False)

    async def _batch(self, ns: list[int], *, tag: str) -> None:
        assert tag == "shared"
        await self._perform(ns, batch=True)

    async def _perform(self, ns: list[int], *, batch: bool) -> None:
        world = self._world
        if world.dead:
            return
        subjects = [world.subjects[n] for n in ns]
        calls = self._started(subjects)
        steps = [subject.step() for subject in subjects]
        errors: dict[int, BaseException] = {}
        try:
            for step in steps[:1]:
                await self._wait(step)
            for place, step in enumerate(steps):
                if (error := _error_of(step)) is not None:
                    errors[place] = error
            if not batch and errors:
                raise errors[0]
        except BaseException as error:
            for call in calls:
                self._ended(call, error)
            raise
        for place, call in enumerate(calls):
            self._ended(call, errors.get(place))
        if errors:
            raise ItemsFailed(errors)

    def _started(self, subjects: list[Subject]) -> list[Call]:
        world = self._world
        slot = world.slot()
        task = slot.runs
        assert task is not None
        calls = []
        for place, subject in enumerate(subjects):
            attempt = task.attempt + 1 if task.chunk is None else _attempt_of(task.chunk, subject.n)
            world.say("start", subject.n, task.id, attempt, task.lane.queue.name, task.lane.user)
            call = Call(
                subject, world.generation, slot, task, attempt, world.seq, world.now_ms(), first_of_batch=place == 0
            )
            calls.append(call)
        for call in calls:
            invariants.started(world, call, len(calls))
        return calls

    def _ended(self, call: Call, error: BaseException | None) -> None:
        world = self._world
        if world.dead:
            return
        call.end, call.not_before_ms = _end_of(call, error, world.now_ms())
        world.say("end", call.subject.n, call.end.value, type(error).__name__ if error else "")
        call.ended, call.ended_ms = world.seq, world.now_ms()
        world.running.pop(call, None)
        if isinstance(error, RateLimited) and not call.was_abandoned and call.slot.stop is not Stop.CANCELLED:
            world.park(call.lane, error.scope, call.ended_ms + int(error.delay_s * 1000))

    async def _wait(self, step: Step) -> None:
        if step.wait_s:
            await asyncio.sleep(step.wait_s)
        match step.act:
            case Act.HANG:
                await asyncio.sleep(3_600)
            case Act.CATCH_SOFT:
                try:
                    await asyncio.sleep(3_600)
                except SoftTimeout:
                    await asyncio.sleep(0.05)
            case Act.DEFY:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    pass
            case Act.SWALLOW:
                try:
                    await asyncio.sleep(3_600)
                except asyncio.CancelledError:
                    await asyncio.sleep(30)
            case Act.KILL:
                self._world.say("poison")
                asyncio.get_running_loop().call_soon(_kill)
                await asyncio.sleep(3_600)
            case _:
                pass

    # -- sources --------------------------------------------------------------------------------------------------

    async def _pages(self, cursor: str | None, *, job: int) -> Page[int]:
        world = self._world
        planned = self._jobs[job]
        number = int(cursor) if cursor is not None else 0
        if world.dead:
            return Page([])
        world.say("pull", job, number)
        invariants.pulled(world, planned)
        troubles = planned.troubles.get(number)
        if troubles:
            step = troubles.pop(0)
            await self._wait(step)
            error = _error_of(step)
            if isinstance(error, RateLimited):
                until_ms = world.now_ms() + int(error.delay_s * 1000)
                world.park(world.job_lane(planned.job_id), error.scope, until_ms, slack_s=invariants.A_TURN_S)
            if error is not None:
                raise error
        assert world.loop is not None
        world.grew_s = world.loop.time()
        following = str(number + 1) if number + 1 < len(planned.pages) else None
        return Page(planned.pages[number], next=following)


def _arguments() -> dict[str, Arguments]:
    # Read once: a method's signature without `self` is that of the bound one, whatever the world.
    stage = Stage.__new__(Stage)
    return {
        "_one": Arguments.of(stage._one),
        "_item": Arguments.of(stage._item),
        "_batch": Arguments.of(stage._batch, batch=True),
        "_pages": Arguments.of(stage._pages, skip_item=True),
    }


_ARGUMENTS: Final = _arguments()


def _attempt_of(chunk: Chunk, n: int) -> int:
    # Items are numbers, and a chunk's items stand in the order they were given.
    index = [int(each) for each in chunk.items.decode().strip("[]").split(",")].index(n)
    return chunk.left.attempts.get(index, 0) + 1


def _error_of(step: Step) -> BaseException | None:
    match step.act:
        case Act.FAIL:
            return Broken("as planned")
        case Act.GIVE_UP:
            return Hopeless("as planned")
        case Act.RETRY_LATER:
            return RetryLater(step.delay_s)
        case Act.SNOOZE:
            return Snooze(step.delay_s)
        case Act.RATE_LIMITED:
            return RateLimited(step.delay_s, scope=step.scope)
        case Act.DISCARD:
            return Discard("as planned")
        case Act.CANCEL_ITSELF:
            return asyncio.CancelledError()
        case Act.EXIT:
            return SystemExit(3)
        case _:
            return None


def _end_of(call: Call, error: BaseException | None, now_ms: int) -> tuple[End, int]:
    """Say what a call comes to that raised `error`, and when the subject may run again at the earliest."""
    stop = call.slot.stop
    at_most_once = call.task.handler.spec is not None and call.task.handler.spec.delivery is Delivery.AT_MOST_ONCE
    if error is None:
        return End.OK, 0
    if stop is Stop.CANCELLED or isinstance(error, Discard | Hopeless):
        return End.FINAL, 0
    if stop is Stop.SHUTDOWN and isinstance(error, asyncio.CancelledError):
        return (End.FINAL if at_most_once else End.FREE), 0
    if isinstance(error, RateLimited):
        return End.FREE, 0
    if isinstance(error, Snooze):
        return End.FREE, now_ms + int(error.delay_s * 1000)
    if isinstance(error, RetryLater):
        return End.BURNED, now_ms + int(error.delay_s * 1000)
    return End.BURNED, 0


def _kill() -> None:
    raise Killed
