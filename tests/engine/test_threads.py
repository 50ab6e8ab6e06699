"""The pool for plain functions: bounded, told to stop in time, and never short of a thread."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from shoestring.config import RunConfig
from shoestring.core.model import Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import SoftTimeout
from shoestring.engine.threads import Threads
from tests.engine.conftest import Rig

ONCE = RetryPolicy(max_attempts=1)


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """Opens at the end, so that no thread is left behind."""
    made = threading.Event()
    yield made
    made.set()


@pytest.fixture
async def pool() -> Threads:
    return Threads(2)


def passing(gate: threading.Event) -> Callable[[], str]:
    def pass_through() -> str:
        assert gate.wait(30)
        return threading.current_thread().name

    return pass_through


async def test_no_more_threads_run_than_allowed_and_the_others_wait(pool: Threads, gate: threading.Event) -> None:
    """Sixteen slow calls must not become a thousand threads."""
    calls = [pool.run(passing(gate)) for _ in range(5)]
    before = [call.begun is None for call in calls]
    gate.set()
    names = {await call.future for call in calls}

    assert [True, True, False, False, False] == before
    assert len(names) <= 2
    pool.close()


async def test_what_waited_says_when_it_begins(pool: Threads, gate: threading.Event) -> None:
    """Its time limits begin then."""
    running = [pool.run(passing(gate)), pool.run(passing(gate))]
    waits = pool.run(lambda: "ran")
    assert waits.begun is not None
    assert not waits.begun.done()

    gate.set()

    await waits.begun
    assert "ran" == await waits.future
    await asyncio.gather(*(call.future for call in running))
    pool.close()


async def test_what_is_given_up_before_it_began_never_begins(pool: Threads, gate: threading.Event) -> None:
    """And leaves no thread behind: the line goes on as if it had never stood in it."""
    began: list[str] = []
    running = [pool.run(passing(gate)), pool.run(passing(gate))]
    gone, stays = pool.run(lambda: began.append("gone")), pool.run(lambda: began.append("stays"))

    assert not gone.abandon()
    assert not gone.abandon()
    gate.set()
    await stays.future

    assert ["stays"] == began
    await asyncio.gather(*(call.future for call in running))
    assert [2, 0] == [pool._threads, pool._busy]
    pool.close()


async def test_a_thread_that_is_given_up_is_replaced_and_ends_with_its_function(
    pool: Threads, gate: threading.Event
) -> None:
    """Two calls that never end must not be the end of all calls."""
    stuck = [pool.run(passing(gate)), pool.run(passing(gate))]
    while not all(call._call.thread_id for call in stuck):  # noqa: ASYNC110 - nobody announces it
        await asyncio.sleep(0)

    assert [True, True] == [call.abandon() for call in stuck]
    names = [await pool.run(lambda: threading.current_thread().name).future for _ in range(3)]
    threads = [each for each in threading.enumerate() if each.name.startswith("handler-") and each.name not in names]
    gate.set()
    for each in threads:
        await asyncio.to_thread(each.join, 30)

    assert not any(each.is_alive() for each in threads)
    assert not any(call.future.done() for call in stuck)
    pool.close()


async def test_what_is_over_cannot_be_given_up(pool: Threads) -> None:
    """Its answer is on its way: counted as abandoned, its thread would be counted out and go on."""
    call = pool.run(lambda: "over")
    while call._call.state.value != "over":
        pass  # the loop must not hear of it yet

    assert not call.abandon()
    assert "over" == await call.future
    assert [1, 0] == [pool._threads, pool._busy]
    pool.close()


async def test_an_interruption_that_comes_late_hits_nothing(pool: Threads) -> None:
    """Raised in the thread's own loop it would end the thread, and after some of those nothing runs any more."""
    call = pool.run(lambda: "over")
    while call._call.state.value != "over":
        pass

    call.interrupt(SoftTimeout)

    assert "over" == await call.future
    assert ["next", "next"] == [await pool.run(lambda: "next").future for _ in range(2)]
    assert 1 == pool._threads
    pool.close()


async def test_an_interruption_hits_its_call_or_nothing(pool: Threads) -> None:
    """Whenever it comes, the call ends one way or the other, and its thread takes the next."""
    for number in range(300):
        spins = number % 50

        def spin(spins: int = spins) -> int:
            for _ in range(spins):
                pass
            return spins

        call = pool.run(spin)
        interrupt_at = time.perf_counter() + (number % 7) * 10e-6
        while time.perf_counter() < interrupt_at:
            pass
        call.interrupt(SoftTimeout)
        try:
            assert spins == await call.future
        except SoftTimeout:
            pass
        assert 0 == pool._busy

    assert "alive" == await pool.run(lambda: "alive").future
    pool.close()


async def test_waiting_for_a_thread_is_not_running(rig: Rig) -> None:
    """A call behind slow ones that is timed out before it began has burnt an attempt for nothing."""
    rig.run = RunConfig(threads=1, abandon_after_s=0.05)
    order: list[int] = []
    gate = threading.Event()

    @rig.task(timeout=Timeout(hard=0.05), retry=ONCE)
    def quick(n: int) -> None:
        order.append(n)

    @rig.task(timeout=Timeout(hard=None))
    def slow() -> None:
        assert gate.wait(30)

    await rig.start()
    await rig.enqueue("slow")
    await rig.reach(lambda: rig.engine.scheduler.running == 1)
    for n in range(3):
        await rig.enqueue("quick", {"n": n})
    await rig.reach(lambda: rig.engine.scheduler.running == 4)
    await asyncio.sleep(0.1)  # twice the limit of those that wait
    gate.set()
    await rig.idle()

    assert [0, 1, 2] == sorted(order)
    assert {"accepted": 4, "completed": 4} == rig.counts()
    assert 0 == rig.engine.status().abandoned


async def test_a_stop_takes_out_of_the_line_what_waits_for_a_thread(rig: Rig) -> None:
    """It never ran, so nothing was abandoned; it runs at the next start."""
    rig.run = RunConfig(threads=1, abandon_after_s=0.05)
    gate, ran = threading.Event(), []

    @rig.task()
    def call(n: int) -> None:
        assert gate.wait(30)
        ran.append(n)

    await rig.start()
    for n in range(3):
        await rig.enqueue("call", {"n": n})
    await rig.reach(lambda: rig.engine.scheduler.running == 3)
    engine = rig.engine
    released = await rig.stop(0)
    gate.set()

    assert [3, 1] == [released, engine.runner.abandoned]
    await rig.start()
    await rig.idle()
    assert {0, 1, 2} == set(ran)
    assert {"accepted": 3, "completed": 3} == rig.counts()
