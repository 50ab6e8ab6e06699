"""Who runs next, how much runs at once, and what waits: lanes, queues, handlers and their limits."""

from __future__ import annotations

import asyncio

import pytest

from shoestring.config import RunConfig
from shoestring.core.model import Limit, QueueConfig, TaskState
from shoestring.core.retry import RetryPolicy
from shoestring.engine import books as books_module
from tests.engine.conftest import Rig, entry, raw

ONCE = RetryPolicy(max_attempts=1)


class Crowd:
    """Counts how many are inside at once, and lets them go when as many came as expected."""

    def __init__(self) -> None:
        self.inside = self.most = 0

    async def visit(self) -> None:
        self.inside += 1
        self.most = max(self.most, self.inside)
        for _ in range(5):
            await asyncio.sleep(0)
        self.inside -= 1


async def test_a_handler_runs_at_most_as_often_at_once_as_it_says(rig: Rig) -> None:
    """The API allows eight connections; a hundred slots must not mean a hundred of them."""
    crowd, others = Crowd(), Crowd()

    @rig.task(concurrency=3)
    async def narrow() -> None:
        await crowd.visit()

    @rig.task()
    async def wide() -> None:
        await others.visit()

    await rig.start()
    await rig.submit(*[entry("narrow", user=f"{number % 4}") for number in range(20)])
    await rig.submit(*[entry("wide", user=f"{number % 4}") for number in range(20)])
    await rig.idle()
    assert 3 == crowd.most
    assert {"accepted": 40, "completed": 40} == rig.counts()


async def test_a_queue_runs_at_most_as_much_at_once_as_it_says(rig: Rig) -> None:
    """Slow work gets a queue of its own and cannot take all the slots."""
    slow, fast = Crowd(), Crowd()

    @rig.task(queue="slow")
    async def one() -> None:
        await slow.visit()

    @rig.task(queue="slow")
    async def two() -> None:
        await slow.visit()

    @rig.task(queue="fast")
    async def three() -> None:
        await fast.visit()

    rig.queues = {"slow": QueueConfig(concurrency=2)}
    rig.run = RunConfig(slots=10)
    await rig.start()
    await rig.submit(*[entry(("one", "two", "three")[number % 3], user=f"{number % 2}") for number in range(30)])
    await rig.idle()
    assert 2 == slow.most
    assert {"accepted": 30, "completed": 30} == rig.counts()


async def test_no_more_runs_at_once_than_there_are_slots(rig: Rig) -> None:
    """The slots bound the memory of what runs."""
    crowd = Crowd()

    @rig.task()
    async def call() -> None:
        await crowd.visit()

    rig.run = RunConfig(slots=4)
    await rig.start()
    await rig.submit(*[entry("call") for _ in range(20)])
    await rig.idle()
    assert 4 == crowd.most


async def test_a_lane_runs_by_priority_and_then_by_age(rig: Rig) -> None:
    """Urgent work overtakes its own user's bulk; among equals the first comes first."""
    ran: list[str] = []

    @rig.task(concurrency=1)
    async def call(name: str) -> None:
        ran.append(name)

    rig.run = RunConfig(slots=1)
    await rig.start()
    await rig.submit(*[
        entry("call", {"name": f"{priority}{letter}"}, priority=priority)
        for letter in "ab" for priority in (0, 100, -100, 5)
    ])  # fmt: skip
    await rig.idle()
    assert ["100a", "100b", "5a", "5b", "0a", "0b", "-100a", "-100b"] == ran


async def test_users_take_turns(rig: Rig) -> None:
    """One user's two million items do not keep another's three waiting."""
    ran: list[str] = []

    @rig.task()
    async def call(user: str) -> None:
        ran.append(user)

    rig.run = RunConfig(slots=1)
    await rig.start()
    await rig.submit(
        *[entry("call", {"user": "many"}, user="many") for _ in range(30)],
        *[entry("call", {"user": "few"}, user="few") for _ in range(3)],
    )
    await rig.idle()
    assert 3 == ran[:8].count("few")


async def test_turns_are_counted_in_items(rig: Rig) -> None:
    """A chunk of ten is ten turns, or fan-outs would crowd single tasks out."""
    ran: list[str] = []

    @rig.task()
    async def item(number: int) -> None:
        ran.append("item")

    @rig.task()
    async def single() -> None:
        ran.append("single")

    @rig.task()
    async def first() -> None:
        await go_on.wait()

    go_on = asyncio.Event()
    rig.run = RunConfig(slots=1)
    engine = await rig.start()
    await rig.enqueue("first", priority=100)
    await rig.reach(lambda: engine.status().running == 1)
    await rig.fan_out("item", list(range(100)), chunk=10, options={"user": "a"})
    await rig.submit(*[entry("single", user="b") for _ in range(100)])
    await rig.until(engine.committer.flush())
    await rig.reach(lambda: len(engine.books.lanes["default", "a"].window.heap) == 10)
    go_on.set()
    await rig.idle()
    assert 30 <= ran[:100].count("single") <= 70


async def test_a_limit_at_run_paces_each_user_by_itself(rig: Rig) -> None:
    """Twenty calls at once and then as many as come in; another user's bucket is another."""
    ran: list[str] = []

    @rig.task(queue="paced")
    async def call(user: str) -> None:
        ran.append(user)

    rig.queues = {"paced": QueueConfig(limit=Limit(capacity=2, rate=0.001))}
    engine = await rig.start()
    await rig.submit(*[entry("call", {"user": user}, user=user) for user in "aabab" for _ in range(1)])
    await rig.submit(entry("call", {"user": "c"}, user="c"))
    await rig.reach(lambda: len(ran) == 5)
    await rig.until(engine.committer.flush())
    assert {"a": 2, "b": 2, "c": 1} == {user: ran.count(user) for user in "abc"}
    assert 1 == engine.status().pending
    tokens = dict(rig.query("SELECT user, round(tokens) FROM buckets"))
    assert {"a": 0, "b": 0, "c": 1} == tokens


async def test_a_paced_lane_goes_on_as_tokens_come_in(rig: Rig) -> None:
    """An empty bucket holds its lane until there is a token again, without anybody polling."""
    ran: list[int] = []

    @rig.task(queue="paced")
    async def call(number: int) -> None:
        ran.append(number)

    rig.queues = {"paced": QueueConfig(limit=Limit(capacity=1, rate=200))}
    await rig.start()
    await rig.submit(*[entry("call", {"number": number}) for number in range(10)])
    await rig.idle()
    assert list(range(10)) == ran


# -- handlers that are missing or changed -----------------------------------------------------------------------------


async def test_a_task_of_an_unknown_handler_waits_for_it(rig: Rig) -> None:
    """A deploy that is one step behind its producers loses nothing and holds nobody up."""
    ran: list[str] = []

    @rig.task()
    async def known() -> None:
        ran.append("known")

    engine = await rig.start()
    waiting = await rig.enqueue("unknown", {"name": "a"})
    await rig.enqueue("known")
    await rig.reach(lambda: ran == ["known"])
    await rig.idle()
    assert {"unknown": 1} == engine.status().waiting_handlers
    assert TaskState.WAITING is (await engine.task(waiting)).state
    assert [False] == [each.declared for each in engine.status().handlers if each.handler == "unknown"]
    await rig.stop()

    @rig.task()
    async def unknown(name: str) -> None:
        ran.append(name)

    engine = await rig.start()
    await rig.idle()
    assert ["known", "a"] == ran
    assert {} == engine.status().waiting_handlers
    assert {"accepted": 2, "completed": 2} == rig.counts()


async def test_tasks_of_a_handler_that_was_dropped_wait(rig: Rig) -> None:
    """Deploying back finds everything still there, delayed tasks included."""
    ran: list[int] = []

    @rig.task()
    async def call(number: int) -> None:
        ran.append(number)

    spec = rig.registry.handlers["call"]
    engine = await rig.start()
    engine.runner.quiet = True  # the stop comes first
    await rig.enqueue("call", {"number": 1}, delay_ms=60)
    await rig.stop()
    rig.forget("call")
    engine = await rig.start()
    await rig.enqueue("call", {"number": 2})
    await rig.reach(lambda: engine.status().waiting_handlers == {"call": 2})
    await rig.stop()
    rig.registry.add_handler(spec)
    await rig.start()
    await rig.idle()
    assert [1, 2] == sorted(ran)


async def test_a_waiting_task_can_be_cancelled(rig: Rig) -> None:
    """Work for a handler that never comes back can be cleared away."""
    engine = await rig.start()
    task_id = await rig.enqueue("unknown")
    await rig.reach(lambda: engine.status().waiting_handlers == {"unknown": 1})
    await rig.until(engine.cancel_task(task_id))
    await rig.reach(lambda: engine.status().waiting_handlers == {})
    assert {"accepted": 1, "cancelled": 1} == rig.counts()


async def test_arguments_that_no_longer_fit_fail_the_task(rig: Rig) -> None:
    """The handler has changed under the stored task: it is kept with the argument's path, and can be replayed."""

    @rig.task(retry=ONCE)
    async def call(to: str) -> None: ...

    engine = await rig.start()
    engine.runner.quiet = True  # the stop comes first
    await rig.enqueue("call", {"to": "a"})
    await rig.stop()
    rig.forget("call")

    async def changed(to: int) -> None: ...

    changed.__name__ = "call"
    rig.task(retry=ONCE)(changed)
    engine = await rig.start()
    await rig.idle()
    (view,) = await engine.discarded()
    assert view.error is not None and "$.to" in view.error and "expected int" in view.error


# -- lanes that are forgotten -----------------------------------------------------------------------------------------


async def test_lanes_are_forgotten_and_learnt_again_with_their_books(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A million users who came once cost no memory, and the books still balance when they come back."""

    @rig.task()
    async def call() -> None: ...

    monkeypatch.setattr(books_module, "_IDLE_LANES_MAX", 10)  # the real one takes a second to fill
    engine = await rig.start()
    for start in range(0, 100, 20):
        await rig.submit(*[entry("call", user=f"{user}") for user in range(start, start + 20)])
        await rig.idle()
    assert 20 >= len(engine.books.lanes)
    assert 100 == rig.count("lanes")
    assert {"accepted": 100, "completed": 100} == rig.counts()
    await rig.submit(*[entry("call", user=f"{user}") for user in range(100)])
    await rig.idle()
    assert 100 == rig.count("lanes")
    assert {"accepted": 200, "completed": 200} == rig.counts()
    assert [(2, 2, 100)] == rig.query("SELECT accepted, completed, count(*) FROM lanes GROUP BY accepted, completed")
    await rig.restart()
    assert {"accepted": 200, "completed": 200} == rig.counts()


async def test_a_lane_with_work_or_a_job_is_not_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what has nothing to say may go."""

    @rig.task()
    async def call() -> None: ...

    @rig.task()
    async def item(number: int) -> None: ...

    monkeypatch.setattr(books_module, "_IDLE_LANES_MAX", 5)
    engine = await rig.start()
    await rig.enqueue("call", user="later", delay_ms=3_600_000)
    job_id = await rig.open_job("item", options={"user": "job"})
    for user in range(50):
        await rig.enqueue("call", user=f"{user}")
    await rig.until(engine.committer.flush())
    assert {"later", "job"} <= {user for _, user in engine.books.lanes}
    await rig.until(engine.append_items(job_id, 0, raw([1, 2])))
    await rig.until(engine.seal_job(job_id))
    assert 2 == (await rig.job_end(job_id)).done
