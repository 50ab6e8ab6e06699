"""Handlers see a plain asyncio world, although slots are used again and again."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from shoestring.config import RunConfig
from shoestring.core.model import Timeout
from shoestring.core.retry import RetryPolicy
from tests.engine.conftest import Rig

ONCE = RetryPolicy(max_attempts=1)
who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_what_a_handler_sets_in_its_context_ends_with_its_call(rig: Rig) -> None:
    """A log line of one user's task must not carry the id of another's."""
    seen: list[str] = []

    @rig.task()
    async def instant(name: str) -> None:
        seen.append(who.get())
        who.set(name)

    @rig.task()
    async def waiting(name: str) -> None:
        seen.append(who.get())
        who.set(name)
        await asyncio.sleep(0)
        assert name == who.get()

    @rig.task()
    def threaded(name: str) -> None:
        seen.append(who.get())
        who.set(name)

    rig.run = RunConfig(slots=1, threads=1)
    await rig.start()
    for handler in ("instant", "waiting", "threaded") * 2:
        await rig.enqueue(handler, {"name": handler})
    await rig.idle()
    assert ["nobody"] * 6 == seen
    assert {"accepted": 6, "completed": 6} == rig.counts()


async def test_each_item_of_a_chunk_has_a_context_of_its_own(rig: Rig) -> None:
    """The items of a chunk are as separate as tasks."""
    seen: list[str] = []

    @rig.task()
    async def call(item: str) -> None:
        seen.append(who.get())
        who.set(item)

    await rig.start()
    await rig.job_end(await rig.fan_out("call", ["a", "b", "c"], chunk=3))
    assert ["nobody"] * 3 == seen


async def test_asyncio_timeout_works_inside_a_handler(rig: Rig) -> None:
    """Client libraries use it; it must neither leak into the slot nor be taken for a stop."""
    seen: list[str] = []

    @rig.task()
    async def call() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        async with asyncio.timeout(30):
            await asyncio.sleep(0)
        seen.append("through")

    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    assert ["through"] == seen


async def test_an_own_timeout_that_is_not_caught_fails_like_any_error(rig: Rig) -> None:
    """It says TimeoutError, and it is retried: it is the handler's, not the queue's."""

    @rig.task(retry=ONCE)
    async def call() -> None:
        async with asyncio.timeout(0.001):
            await asyncio.Event().wait()

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert "TimeoutError" == view.error


async def test_task_groups_work_inside_a_handler(rig: Rig) -> None:
    """Calling three services at once is what asyncio is for."""
    seen: list[int] = []

    async def one(number: int) -> None:
        await asyncio.sleep(0)
        seen.append(number)

    async def fails() -> None:
        raise ValueError("no")

    @rig.task()
    async def all_well() -> None:
        async with asyncio.TaskGroup() as group:
            for number in range(3):
                group.create_task(one(number))

    @rig.task(retry=ONCE)
    async def one_fails() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.Event().wait())
            group.create_task(fails())

    rig.run = RunConfig(slots=1)
    engine = await rig.start()
    await rig.enqueue("one_fails")
    await rig.enqueue("all_well")
    await rig.idle()
    assert [0, 1, 2] == sorted(seen)
    (view,) = await engine.discarded()
    assert view.error is not None and view.error.startswith("ExceptionGroup")
    assert view.traceback is not None and "ValueError: no" in view.traceback


async def test_the_hard_limit_ends_a_task_group_and_all_in_it(rig: Rig) -> None:
    """Nothing a handler started in its group goes on behind its back."""
    ended: list[str] = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("child")

    @rig.task(timeout=Timeout(hard=0.01), retry=ONCE)
    async def call() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert "TimeoutError: the hard time limit of 0.01 s has passed" == view.error
    assert ["child"] == ended


async def test_a_handler_that_cancels_itself_has_failed(rig: Rig) -> None:
    """A stray CancelledError is nobody's order to stop: the task is not lost, and the slot lives."""

    @rig.task(retry=ONCE)
    async def cancels() -> None:
        raise asyncio.CancelledError

    @rig.task()
    async def works() -> None: ...

    rig.run = RunConfig(slots=1)
    engine = await rig.start()
    await rig.enqueue("cancels")
    await rig.enqueue("works")
    await rig.idle()
    (view,) = await engine.discarded()
    assert "RuntimeError: the handler cancelled itself" == view.error
    assert {"accepted": 2, "completed": 1, "discarded": 1} == rig.counts()


@pytest.mark.parametrize("error", [SystemExit, StopIteration, StopAsyncIteration])
async def test_no_exception_of_a_handler_takes_the_daemon_with_it(rig: Rig, error: type[BaseException]) -> None:
    """A library that calls sys.exit() ends its task, not everybody's."""

    @rig.task(retry=ONCE)
    async def in_loop() -> None:
        raise error("no")

    @rig.task(retry=ONCE)
    def in_thread() -> None:
        raise error("no")

    await rig.start()
    await rig.enqueue("in_loop")
    await rig.enqueue("in_thread")
    await rig.idle()
    assert {"accepted": 2, "discarded": 2} == rig.counts()


async def test_threads_are_at_most_as_many_as_allowed(rig: Rig) -> None:
    """The rest wait their turn; a small machine is not buried in threads."""
    names: set[str] = set()
    together = threading.Barrier(2, timeout=20)

    @rig.task()
    def call() -> None:
        names.add(threading.current_thread().name)
        together.wait()

    rig.run = RunConfig(threads=2)
    await rig.start()
    for _ in range(8):
        await rig.enqueue("call")
    await rig.idle()
    assert 2 == len(names)
    assert {"accepted": 8, "completed": 8} == rig.counts()
