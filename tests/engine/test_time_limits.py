"""Time limits of handlers in the loop and in threads: what is told to stop, and what is given up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from shoestring.config import RunConfig
from shoestring.core.model import Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import SoftTimeout
from tests.engine.conftest import Rig

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What holds a thread up until the test is over."""
    event = threading.Event()
    yield event
    event.set()


async def _errors(rig: Rig) -> list[str | None]:
    await rig.idle()
    return [view.error for view in await rig.engine.discarded()]


async def test_the_soft_limit_is_raised_where_the_handler_stands(rig: Rig) -> None:
    """A handler can still write down how far it came."""
    cleaned: list[str] = []

    @rig.task(timeout=Timeout(soft=0.005, hard=30))
    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except SoftTimeout:
            await asyncio.sleep(0)
            cleaned.append("up")

    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    assert ["up"] == cleaned
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_a_soft_limit_that_is_not_caught_fails_the_attempt(rig: Rig) -> None:
    """It is an ordinary exception: retried, and in the end discarded with it."""

    @rig.task(timeout=Timeout(soft=0.005, hard=30), retry=ONCE)
    async def call() -> None:
        await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("call")
    assert ["SoftTimeout: the soft time limit has passed"] == await _errors(rig)


async def test_the_soft_limit_reaches_a_thread(rig: Rig) -> None:
    """Plain functions have the same limits as coroutines."""

    @rig.task(timeout=Timeout(soft=0.01, hard=30), retry=ONCE)
    def call() -> None:
        tick = threading.Event()
        while True:
            tick.wait(0.001)

    await rig.start()
    await rig.enqueue("call")
    assert ["SoftTimeout"] == await _errors(rig)
    assert 0 == rig.engine.status().abandoned


async def test_the_hard_limit_cancels(rig: Rig) -> None:
    """An API that never answers must not hold a slot for ever."""

    @rig.task(timeout=Timeout(hard=0.005), retry=ONCE)
    async def call() -> None:
        await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("call")
    assert ["TimeoutError: the hard time limit of 0.005 s has passed"] == await _errors(rig)
    assert 0 == rig.engine.status().abandoned


async def test_a_thread_past_its_hard_limit_is_abandoned_and_its_slot_returned(rig: Rig, gate: threading.Event) -> None:
    """A thread cannot be ended. What it occupied is given back, and somebody is told."""
    ran = asyncio.Event()

    @rig.task(timeout=Timeout(hard=0.01), retry=ONCE)
    def hangs() -> None:
        gate.wait()

    @rig.task()
    def works() -> None:
        loop.call_soon_threadsafe(ran.set)

    loop = asyncio.get_running_loop()
    rig.run = RunConfig(slots=1, threads=1, abandon_after_s=0.01)
    engine = await rig.start()
    await rig.enqueue("hangs")
    await rig.enqueue("works")
    await rig.until(ran.wait())
    assert ["TimeoutError: the hard time limit of 0.01 s has passed"] == await _errors(rig)
    status = engine.status()
    assert (1, 0) == (status.abandoned, status.running)
    assert {"hangs": 1, "works": 0} == {each.handler: each.abandoned for each in status.handlers}


async def test_what_an_abandoned_thread_comes_to_in_the_end_is_not_counted(rig: Rig, gate: threading.Event) -> None:
    """Its task has its outcome; a second one would unbalance the books."""
    returned = asyncio.Event()

    @rig.task(timeout=Timeout(hard=0.01), retry=ONCE)
    def hangs() -> None:
        gate.wait()
        loop.call_soon_threadsafe(returned.set)

    loop = asyncio.get_running_loop()
    await rig.start()
    await rig.enqueue("hangs")
    await rig.idle()
    gate.set()
    await rig.until(returned.wait())
    await rig.idle()
    assert {"accepted": 1, "discarded": 1} == rig.counts()


async def test_a_coroutine_that_swallows_its_cancellation_is_abandoned(rig: Rig) -> None:
    """`except BaseException` around a retry loop is all it takes; the queue must not stand still for it."""
    let_go = asyncio.Event()

    @rig.task(timeout=Timeout(hard=0.005), retry=ONCE)
    async def hangs() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    @rig.task()
    async def works() -> None: ...

    rig.run = RunConfig(slots=1, abandon_after_s=0.01)
    engine = await rig.start()
    await rig.enqueue("hangs")
    await rig.enqueue("works")
    assert ["TimeoutError: the hard time limit of 0.005 s has passed"] == await _errors(rig)
    status = engine.status()
    assert (1, 0, {"accepted": 2, "completed": 1, "discarded": 1}) == (status.abandoned, status.running, rig.counts())
    let_go.set()
    await asyncio.sleep(0)


async def test_an_item_that_hangs_is_abandoned_and_its_chunk_goes_on(rig: Rig) -> None:
    """One item of fifty that hangs costs itself, not the other forty-nine."""
    let_go = asyncio.Event()
    done: list[int] = []

    @rig.task(timeout=Timeout(hard=0.005), retry=ONCE)
    async def call(item: int) -> None:
        while item == 2 and not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        if item != 2:
            done.append(item)

    rig.run = RunConfig(slots=1, abandon_after_s=0.01)
    engine = await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [1, 2, 3], chunk=3))
    assert (2, 1, 0) == (progress.done, progress.failed, progress.pending)
    assert [1, 3] == done
    assert 1 == engine.status().abandoned
    let_go.set()
    await asyncio.sleep(0)


async def test_finishing_in_spite_of_the_limit_counts_as_done(rig: Rig) -> None:
    """What was done was done; to repeat it would be the worse mistake."""

    @rig.task(timeout=Timeout(hard=0.005), retry=ONCE)
    async def call() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return

    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_a_limit_of_one_call_never_hits_the_next(rig: Rig) -> None:
    """Slots are used again at once; a deadline belongs to a call, not to its slot."""
    calls = 0

    @rig.task(timeout=Timeout(soft=0.1, hard=0.12), retry=ONCE)
    async def call() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.002)

    rig.run = RunConfig(slots=1)
    await rig.start()
    for _ in range(70):
        await rig.enqueue("call")
    await rig.idle()
    assert {"accepted": 70, "completed": 70} == rig.counts()
