"""What becomes of a task whose handler raises: tried again when, how often, and given up how."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from shoestring.core.model import TaskState
from shoestring.core.retry import RetryPolicy
from shoestring.core.signals import Discard, ItemsFailed, RateLimited, RetryLater, Snooze
from tests.engine.conftest import Rig

HOUR_MS = 3_600_000
AT_ONCE = RetryPolicy(max_attempts=3, base=0.0)


async def test_a_failed_attempt_is_stored_as_due_after_its_delay(rig: Rig) -> None:
    """A retry of an hour is a row, not a timer: it outlives the process that made it."""

    @rig.task(retry=RetryPolicy(base=3_600.0, jitter=False))
    async def call() -> None:
        raise OSError("down")

    engine = await rig.start()
    before_ms = engine._clock.now_ms()
    task_id = await rig.enqueue("call")
    await rig.reach(lambda: engine.status().delayed == 1)
    await engine.committer.flush()
    ((found_id, due_at_ms, attempt),) = rig.query("SELECT id, due_at_ms, attempt FROM delayed")
    assert (task_id, 1) == (found_id, attempt)
    assert before_ms + HOUR_MS <= due_at_ms <= engine._clock.now_ms() + HOUR_MS
    assert 0 == rig.count("ready")
    view = await engine.task(task_id)
    assert (TaskState.DELAYED, 1, due_at_ms) == (view.state, view.attempt, view.due_at_ms)


async def test_a_retry_runs_when_it_is_due(rig: Rig) -> None:
    """What failed once because the network hiccuped ends well without anybody looking."""
    calls: list[int] = []

    @rig.task(retry=RetryPolicy(schedule=("10ms", "20ms")))
    async def call() -> None:
        calls.append(len(calls))
        if len(calls) < 3:
            raise OSError("down")

    await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    assert [0, 1, 2] == calls
    assert {"accepted": 1, "completed": 1} == rig.counts()
    assert 0 == rig.count("ready") + rig.count("delayed") + rig.count("discarded")


async def test_a_schedule_is_followed_to_the_letter(rig: Rig) -> None:
    """Who writes `1m, 1h` has reasons: no jitter, no back-off, one attempt more than delays."""

    @rig.task(retry=RetryPolicy(schedule=("1m", "1h")))
    async def call() -> None:
        raise OSError("down")

    engine = await rig.start()
    before_ms = engine._clock.now_ms()
    await rig.enqueue("call")
    await rig.reach(lambda: engine.status().delayed == 1)
    await engine.committer.flush()
    ((due_at_ms,),) = rig.query("SELECT due_at_ms FROM delayed")
    assert before_ms + 60_000 <= due_at_ms <= engine._clock.now_ms() + 60_000


async def test_the_last_attempt_discards_with_error_and_traceback(rig: Rig) -> None:
    """Nothing vanishes: what was given up stands there with what went wrong and where."""

    @rig.task(retry=AT_ONCE)
    async def call(to: str) -> None:
        raise ValueError(f"no such address: {to}")

    engine = await rig.start()
    task_id = await rig.enqueue("call", {"to": "nobody"})
    await rig.idle()
    (view,) = await engine.discarded()
    assert (task_id, TaskState.DISCARDED, 3) == (view.task_id, view.state, view.attempt)
    assert "ValueError: no such address: nobody" == view.error
    assert view.traceback is not None and "in call" in view.traceback and __file__ in view.traceback
    assert {"accepted": 1, "discarded": 1} == rig.counts()
    assert 1 == engine.status().discarded_kept


@pytest.mark.parametrize(
    "policy",
    [RetryPolicy(on=(OSError,), base=0.0), RetryPolicy(give_up_on=(LookupError,), base=0.0)],
    ids=["not in on", "in give_up_on"],
)
async def test_an_error_that_is_not_to_be_retried_discards_at_once(rig: Rig, policy: RetryPolicy) -> None:
    """A wrong address stays wrong however often it is tried."""

    @rig.task(retry=policy)
    async def call() -> None:
        raise KeyError("wrong")

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert 1 == view.attempt


async def test_a_handler_in_a_thread_is_retried_alike(rig: Rig) -> None:
    """Plain functions are handlers like any other."""
    calls: list[int] = []

    @rig.task(retry=AT_ONCE)
    def call() -> None:
        calls.append(1)
        raise OSError("down")

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert (3, 3) == (len(calls), view.attempt)


@pytest.mark.parametrize(
    ("raised", "burned"),
    [(lambda: RetryLater(0.001), 1), (lambda: Snooze(0.001), 0), (lambda: RateLimited(0.001), 0)],
    ids=["RetryLater", "Snooze", "RateLimited"],
)
async def test_a_signal_burns_an_attempt_or_does_not(
    rig: Rig, raised: Callable[[], BaseException], burned: int
) -> None:
    """Waiting because the other side says so must not use up the attempts meant for failures."""
    calls = 0

    @rig.task(retry=RetryPolicy(max_attempts=3, base=0.0))
    async def call() -> None:
        nonlocal calls
        calls += 1
        if calls <= 2:
            raise raised()
        raise Discard("enough")

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert (3, 2 * burned + 1) == (calls, view.attempt)
    assert "discarded: enough" == view.error


async def test_retry_later_ends_at_the_last_attempt(rig: Rig) -> None:
    """A handler that always asks for later would otherwise stay for ever."""

    @rig.task(retry=RetryPolicy(max_attempts=2))
    async def call() -> None:
        raise RetryLater(0.001, "busy")

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert (2, "RetryLater: busy") == (view.attempt, view.error)


async def test_rate_limited_parks_the_lane_with_one_row(rig: Rig) -> None:
    """A thousand waiting tasks behind a 429 cost one write, and other users go on."""
    ran: list[str] = []

    @rig.task()
    async def call(user: str) -> None:
        if user == "a":
            raise RateLimited(3_600)
        ran.append(user)

    engine = await rig.start()
    for _ in range(5):
        await rig.enqueue("call", {"user": "a"}, user="a")
    await rig.reach(lambda: bool(engine.status().parked))
    await rig.enqueue("call", {"user": "b"}, user="b")
    await rig.reach(lambda: ran == ["b"])
    await engine.committer.flush()
    assert 1 == rig.count("parks")
    assert 5 == rig.count("ready")
    assert 0 == rig.count("delayed")
    (parked,) = engine.status().parked
    assert ("a", 5, "rate limited for 3600 s") == (parked.user, parked.pending, parked.parked_reason)


@pytest.mark.parametrize(("scope", "held"), [("queue", {"b", "c"}), ("user", {"a"})])
async def test_rate_limited_holds_what_its_scope_says(rig: Rig, scope: str, held: set[str]) -> None:
    """An API key shared by all users is limited for all of them; an account everywhere it is used."""
    ran: list[str] = []

    @rig.task(queue="one")
    async def limited() -> None:
        raise RateLimited(3_600, scope=scope)  # type: ignore[arg-type]

    @rig.task(queue="one")
    async def same_queue(name: str) -> None:
        ran.append(name)

    @rig.task(queue="two")
    async def other_queue(name: str) -> None:
        ran.append(name)

    engine = await rig.start()
    await rig.enqueue("limited", user="u")
    await rig.reach(lambda: bool(engine.status().parked))
    await rig.submit()
    await rig.enqueue("same_queue", {"name": "b"}, user="v")
    await rig.enqueue("same_queue", {"name": "c"}, user="w")
    await rig.enqueue("other_queue", {"name": "a"}, user="u")
    await rig.enqueue("other_queue", {"name": "d"}, user="v")
    await rig.reach(lambda: set(ran) == {"a", "b", "c", "d"} - held)


async def test_discard_keeps_its_reason(rig: Rig) -> None:
    """Who gives a task up on purpose says why; the person who looks finds it."""

    @rig.task()
    async def call() -> None:
        raise Discard("the account is gone")

    engine = await rig.start()
    await rig.enqueue("call")
    await rig.idle()
    (view,) = await engine.discarded()
    assert "discarded: the account is gone" == view.error


async def test_items_failed_retries_just_these_items(rig: Rig) -> None:
    """Of a page of fifty the one bad item is repeated, not the forty-nine calls that worked."""
    batches: list[list[int]] = []

    @rig.task(batch=True, retry=AT_ONCE)
    async def call(items: list[int]) -> None:
        batches.append(list(items))
        bad = {place: ValueError(f"{item}") for place, item in enumerate(items) if item in (2, 4)}
        if bad:
            raise ItemsFailed(bad)

    engine = await rig.start()
    job_id = await rig.fan_out("call", [1, 2, 3, 4], chunk=4)
    progress = await rig.job_end(job_id)
    assert (2, 2, 0) == (progress.done, progress.failed, progress.pending)
    assert [[1, 2, 3, 4], [2, 4], [2, 4]] == batches
    await rig.idle()
    views = await engine.discarded()
    assert {("ValueError: 2", 3), ("ValueError: 4", 3)} == {(view.error, view.attempt) for view in views}
    assert {"accepted": 4, "completed": 2, "discarded": 2} == rig.counts()


async def test_signals_are_allowed_among_failed_items(rig: Rig) -> None:
    """An item that is to be given up at once need not be tried three times first."""
    calls = 0

    @rig.task(batch=True)
    async def call(items: list[int]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ItemsFailed({0: Discard("gone"), 1: Snooze(0.001)})

    engine = await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [1, 2, 3], chunk=3))
    assert (2, 1) == (progress.done, progress.failed)
    assert 2 == calls
    (handler,) = engine.status().handlers
    assert 1 == handler.failed, "an item that is put off has not failed"


async def test_each_item_has_attempts_of_its_own(rig: Rig) -> None:
    """One flaky item does not use up the attempts of its neighbours in the chunk."""
    tried: dict[int, int] = {}

    @rig.task(retry=AT_ONCE)
    async def call(item: int) -> None:
        tried[item] = tried.get(item, 0) + 1
        if tried[item] <= item:
            raise OSError("down")

    await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [0, 1, 2, 3], chunk=4))
    assert (3, 1) == (progress.done, progress.failed)
    assert {0: 1, 1: 2, 2: 3, 3: 3} == tried


async def test_a_rate_limited_item_is_repeated_and_its_neighbours_wait(rig: Rig) -> None:
    """The chunk stops where the API said stop; nothing of it is lost or repeated."""
    calls: list[int] = []

    @rig.task()
    async def call(item: int) -> None:
        calls.append(item)
        if calls == [1, 2]:
            raise RateLimited(0.001)

    await rig.start()
    progress = await rig.job_end(await rig.fan_out("call", [1, 2, 3], chunk=3))
    assert (3, 0) == (progress.done, progress.failed)
    assert [1, 2, 2, 3] == calls
