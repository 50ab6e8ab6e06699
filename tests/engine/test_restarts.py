"""What a stop, a crash and a new generation leave of the work: everything, once, in its place."""

from __future__ import annotations

import asyncio
import shutil
import threading

from shoestring.config import RunConfig
from shoestring.core.model import Page, TaskState
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import RateLimited, Snooze
from shoestring.engine.register import Register, read_suspects
from tests.engine.conftest import Rig

ONCE = RetryPolicy(max_attempts=1)


async def test_a_stop_releases_what_runs_and_burns_no_attempt(rig: Rig) -> None:
    """A deploy is not a failure of the task that happened to run."""
    inside = asyncio.Event()
    generations: list[int] = []

    @rig.task(retry=ONCE)
    async def call() -> None:
        generations.append(rig.engine.books.generation)
        inside.set()
        if len(generations) == 1:
            await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("call")
    await rig.until(inside.wait())
    assert 1 == await rig.stop(0)
    assert [(0, None)] == rig.query("SELECT attempt, extra FROM ready")
    engine = await rig.start()
    await rig.idle()
    assert [1, 2] == generations
    assert {"accepted": 1, "completed": 1} == rig.counts()
    assert 0 == engine.status().suspects


async def test_a_stop_waits_for_what_ends_within_the_grace(rig: Rig) -> None:
    """A task that needs a moment more gets it, and is not run twice."""
    inside, go_on = asyncio.Event(), asyncio.Event()

    @rig.task()
    async def call() -> None:
        inside.set()
        await go_on.wait()

    await rig.start()
    await rig.enqueue("call")
    await rig.until(inside.wait())
    stopping = asyncio.ensure_future(rig.stop())
    await asyncio.sleep(0)
    go_on.set()
    assert 0 == await stopping
    assert 0 == rig.count("ready")


async def test_a_thread_that_does_not_end_does_not_hold_up_the_stop(rig: Rig) -> None:
    """The process ends, and the task runs again in the next."""
    inside = asyncio.Event()
    gate = threading.Event()

    @rig.task(retry=ONCE)
    def call() -> None:
        loop.call_soon_threadsafe(inside.set)
        gate.wait()

    loop = asyncio.get_running_loop()
    await rig.start()
    await rig.enqueue("call")
    await rig.until(inside.wait())
    assert 1 == await rig.stop(0)
    gate.set()
    assert 1 == rig.count("ready")
    await rig.start()
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_what_waits_is_there_after_a_crash_with_books_that_balance(rig: Rig) -> None:
    """kill -9 loses nothing that was answered."""

    @rig.task()
    async def call() -> None: ...

    @rig.task(queue="later")
    async def later() -> None: ...

    await rig.start()
    for _ in range(3):
        await rig.enqueue("later", delay_ms=3_600_000)
    await rig.enqueue("call")
    await rig.engine.committer.flush()
    await rig.crash()
    engine = await rig.start()
    await rig.reach(lambda: engine.status().ledger.completed == 1)
    assert (3, 3) == (engine.status().delayed, engine.status().pending)
    assert {"accepted": 4, "completed": 1} == rig.counts()


async def test_parks_survive_a_restart(rig: Rig) -> None:
    """An API that said wait an hour does not mean until the next deploy."""
    calls: list[str] = []

    @rig.task()
    async def call(name: str) -> None:
        calls.append(name)
        if name == "a":
            raise RateLimited(3_600)

    engine = await rig.start()
    await rig.enqueue("call", {"name": "a"}, user="a")
    await rig.reach(lambda: bool(engine.status().parked))
    (before,) = engine.status().parked
    engine = await rig.restart()
    await rig.enqueue("call", {"name": "a"}, user="a")
    await rig.enqueue("call", {"name": "b"}, user="b")
    await rig.reach(lambda: calls == ["a", "b"])
    (after,) = engine.status().parked
    assert (before.parked_until_ms, before.parked_reason) == (after.parked_until_ms, after.parked_reason)


async def test_a_park_that_passed_while_nobody_ran_is_gone(rig: Rig) -> None:
    """Old parks do not pile up in the file."""
    calls = 0

    @rig.task()
    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RateLimited(0.001)

    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    await rig.restart()
    await rig.enqueue("call")
    await rig.idle()
    assert 0 == rig.count("parks")


# -- at most once -----------------------------------------------------------------------------------------------------


async def test_at_most_once_is_marked_before_it_runs_and_never_runs_again(rig: Rig) -> None:
    """A payment that may have been made is a question for people, not for a retry."""
    inside = asyncio.Event()
    calls: list[int] = []

    @rig.task(delivery="at_most_once")
    async def pay() -> None:
        calls.append(rig.query("SELECT count(*) FROM ready WHERE extra LIKE '%started%'")[0][0])
        inside.set()
        await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("pay")
    await rig.until(inside.wait())
    await rig.crash()
    engine = await rig.start()
    await rig.idle()
    assert [1] == calls
    (view,) = await engine.discarded()
    assert "the daemon ended while it was running, and it must not run twice" == view.error


async def test_at_most_once_is_not_retried_after_an_error(rig: Rig) -> None:
    """An error does not say how far it came."""
    calls: list[int] = []

    @rig.task(delivery="at_most_once", retry=RetryPolicy(base=0.0))
    async def pay() -> None:
        calls.append(1)
        raise OSError("timeout")

    engine = await rig.start()
    await rig.enqueue("pay")
    await rig.idle()
    (view,) = await engine.discarded()
    assert ([1], 1, "OSError: timeout") == (calls, view.attempt, view.error)


async def test_at_most_once_that_asks_for_later_is_run_later(rig: Rig) -> None:
    """Who raises Snooze or RateLimited says that nothing was done yet."""
    calls: list[int] = []

    @rig.task(delivery="at_most_once")
    async def pay() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise Snooze(0.001)
        if len(calls) == 2:
            raise RateLimited(0.001)

    await rig.start()
    await rig.enqueue("pay")
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()
    assert 3 == len(calls)


async def test_at_most_once_that_was_rate_limited_runs_after_a_restart(rig: Rig) -> None:
    """The mark that it was started is taken back in the file, too."""
    calls: list[int] = []

    @rig.task(delivery="at_most_once")
    async def pay() -> None:
        calls.append(1)
        if len(calls) == 1:
            raise RateLimited(0.2)

    engine = await rig.start()
    await rig.enqueue("pay")
    await rig.reach(lambda: bool(engine.status().parked))
    await engine.committer.flush()
    await rig.crash()
    await rig.start()
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()
    assert 2 == len(calls)


# -- the register of who runs -----------------------------------------------------------------------------------------


async def test_who_runs_stands_in_the_register(rig: Rig) -> None:
    """After kill -9 exactly these are suspects; who waits is not."""
    inside = asyncio.Event()

    @rig.task(concurrency=1)
    async def call() -> None:
        inside.set()
        await asyncio.Event().wait()

    await rig.start()
    first = await rig.enqueue("call")
    await rig.enqueue("call")
    await rig.until(inside.wait())
    (path,) = rig.folder.glob("*.running")
    _, (suspect,) = read_suspects(path)
    assert rig.engine.owned[first].rank == suspect[1]
    await rig.crash()
    engine = await rig.start()
    assert 1 == engine.status().suspects


async def test_a_clean_stop_leaves_no_suspects(rig: Rig) -> None:
    """What was released in good order is not to blame for anything."""
    inside = asyncio.Event()

    @rig.task()
    async def call() -> None:
        inside.set()
        await asyncio.Event().wait()

    await rig.start()
    await rig.enqueue("call")
    await rig.until(inside.wait())
    await rig.stop(0)
    assert [] == list(rig.folder.glob("*.running"))
    engine = await rig.start()
    assert 0 == engine.status().suspects


async def test_a_task_that_takes_the_daemon_along_three_times_is_discarded(rig: Rig) -> None:
    """A poison task would otherwise kill every generation: it runs alone once, and is then given up."""
    ran: list[tuple[int, int]] = []
    inside = asyncio.Event()

    @rig.task()
    async def poison() -> None:
        ran.append((rig.engine.books.generation, rig.engine.scheduler.running))
        inside.set()
        await asyncio.Event().wait()

    @rig.task()
    async def harmless() -> None:
        await asyncio.sleep(0)

    await rig.start()
    task_id = await rig.enqueue("poison")
    for generation in (1, 2, 3):
        for _ in range(5):
            await rig.enqueue("harmless")
        await rig.until(inside.wait())
        inside.clear()
        assert TaskState.RUNNING is (await rig.engine.task(task_id)).state
        await rig.engine.committer.flush()
        await rig.crash()
        engine = await rig.start()
        assert generation + 1 == engine.books.generation
    await rig.idle()
    assert [1, 2, 3] == [generation for generation, _ in ran]
    assert (3, 1) == ran[-1], "the third time it ran alone"
    (view,) = await rig.engine.discarded()
    assert (task_id, "the daemon died 3 times while this task was running") == (view.task_id, view.error)
    assert {"accepted": 16, "completed": 15, "discarded": 1} == rig.counts()


async def test_a_suspect_that_ended_before_the_crash_is_not_counted(rig: Rig) -> None:
    """The register may be a moment older than the last commit."""

    @rig.task()
    async def call() -> None: ...

    engine = await rig.start()
    task_id = await rig.enqueue("call")
    lane = engine.books.lanes["default", ""]
    rank = (100 << 53) | task_id
    await rig.idle()
    (path,) = rig.folder.glob("*.running")
    await rig.crash()
    kept = path.with_suffix(".kept")
    register = Register(kept, slots=2, generation=1)
    register.mark(0, int(lane.id), rank)
    register._map.flush()
    shutil.copy(kept, path)
    engine = await rig.start()
    assert 0 == engine.status().suspects
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_a_broken_register_is_no_reason_not_to_start(rig: Rig) -> None:
    """It lives on tmpfs and helps; it does not rule."""

    @rig.task()
    async def call() -> None: ...

    await rig.start()
    (path,) = rig.folder.glob("*.running")
    await rig.crash()
    path.write_bytes(b"not a register")
    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    assert {"accepted": 1, "completed": 1} == rig.counts()


async def test_done_items_are_not_repeated_after_a_restart(rig: Rig) -> None:
    """Of a chunk only what was not done runs again."""
    calls: list[int] = []
    inside = asyncio.Event()

    @rig.task()
    async def call(item: int) -> None:
        calls.append(item)
        if item == 3 and rig.engine.books.generation == 1:
            inside.set()
            await asyncio.Event().wait()

    rig.run = RunConfig(slots=1, abandon_after_s=0.05)
    await rig.start()
    job_id = await rig.fan_out("call", [1, 2, 3, 4], chunk=4)
    await rig.until(inside.wait())
    await rig.stop(0)
    await rig.start()
    progress = await rig.job_end(job_id)
    assert (4, 0) == (progress.done, progress.failed)
    assert [1, 2, 3, 3, 4] == calls


async def test_a_source_goes_on_where_it_stood(rig: Rig) -> None:
    """The cursor is stored with its page: after a crash no page is missing and none is there twice."""
    pulled: list[str | None] = []
    seen: list[int] = []
    second = asyncio.Event()

    @rig.source()
    async def pages(cursor: str | None) -> Page[int]:
        pulled.append(cursor)
        if cursor == "2" and rig.engine.books.generation == 1:
            second.set()
            await asyncio.Event().wait()
        number = int(cursor or 1)
        return Page([number * 10, number * 10 + 1], next=str(number + 1) if number < 3 else None)

    @rig.task()
    async def call(item: int) -> None:
        seen.append(item)

    await rig.start()
    job_id = await rig.fan_out_pages("call", "pages")
    await rig.until(second.wait())
    await rig.reach(lambda: len(seen) == 2)
    await rig.engine.committer.flush()
    await rig.crash()
    await rig.start()
    progress = await rig.job_end(job_id)
    assert (6, 6) == (progress.total, progress.done)
    assert [None, "2", "2", "3"] == pulled
    assert [10, 11, 20, 21, 30, 31] == sorted(seen)
