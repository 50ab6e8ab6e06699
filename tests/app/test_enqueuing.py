"""From a call to a task that ran: embedded, over the socket, from loops and from threads."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from shoestring import (
    AlreadyOwned,
    ArgumentError,
    Call,
    PartlyStored,
    PayloadTooLarge,
    Receipt,
    Shoestring,
    Unavailable,
    UsageError,
)
from tests.serving import Serve, Served, limits


async def test_an_embedded_queue_runs_what_is_enqueued(app: Shoestring) -> None:
    """One process, no daemon: the quick start."""
    greeted: list[str] = []

    @app.task
    async def greet(name: str) -> None:
        greeted.append(name)

    async with app.running() as service:
        receipts = [await greet.enqueue("ada"), await greet.using(user="x").enqueue(name="bob")]
        await service.wait_idle()

    assert greeted == ["ada", "bob"]
    assert receipts == [Receipt(1), Receipt(2)]


async def test_the_same_code_goes_over_the_socket_to_a_daemon(app: Shoestring, serve: Serve) -> None:
    """Where a call goes is decided by what runs around it, not by the code."""
    ran = asyncio.Event()

    @app.task
    async def work() -> None:
        ran.set()

    await serve(app)
    receipt = await work.enqueue()
    await ran.wait()

    assert receipt == Receipt(1)


async def test_a_unique_key_that_is_held_stores_nothing(app: Shoestring) -> None:
    """A button that is clicked twice sends one mail."""

    @app.task
    async def work() -> None:
        await asyncio.Event().wait()

    async with app.running() as service:
        first = await work.using(unique="k").enqueue()
        second = await work.using(unique="k").enqueue()
        assert service.engine.status().ledger.accepted == 1

    assert (first, second) == (Receipt(1), Receipt(1, duplicate=True))


async def test_a_handler_may_enqueue_from_its_loop_and_from_its_thread(app: Shoestring) -> None:
    """The daemon's own handlers need no socket."""
    ran: list[str] = []

    @app.task
    async def last(who: str) -> None:
        ran.append(who)

    @app.task
    async def in_the_loop() -> None:
        await last.enqueue("loop")

    @app.task
    def in_a_thread() -> None:
        last.enqueue_sync("thread")
        app.enqueue_many_sync([last.call("many"), last.call("many")])

    async with app.running() as service:
        await in_the_loop.enqueue()
        await in_a_thread.enqueue()
        await service.wait_idle()

    assert sorted(ran) == ["loop", "many", "many", "thread"]


async def test_waiting_for_the_loop_in_the_loop_is_refused(app: Shoestring) -> None:
    """It would hang the whole queue, silently."""

    @app.task
    async def work() -> None:
        """Do nothing."""

    async with app.running():
        with pytest.raises(UsageError, match="Await the method without `_sync` instead"):
            work.enqueue_sync()


async def test_another_loop_of_the_same_process_is_told_what_to_call(app: Shoestring) -> None:
    """A future of one loop cannot be awaited in another."""

    @app.task
    async def work() -> None:
        """Do nothing."""

    async with app.running():
        with ThreadPoolExecutor(1) as pool:
            failed = await asyncio.wrap_future(pool.submit(_error_of, work.enqueue))

    assert isinstance(failed, UsageError)
    assert "enqueue_sync" in str(failed)


def _error_of(call: object) -> BaseException | None:
    assert callable(call)
    try:
        asyncio.run(call())
    except UsageError as error:
        return error
    return None


async def test_a_process_forked_from_the_queue_goes_over_the_socket(app: Shoestring, serve: Serve) -> None:
    """The engine's loop does not run there; to wait for it would be for ever."""

    @app.task(queue="held", concurrency=1)
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    served = await serve(app)

    def in_a_child() -> int:
        if (child := os.fork()) == 0:
            try:
                os._exit(0 if work.enqueue_sync(1) == Receipt(1) else 1)
            finally:
                os._exit(2)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    with app.attached(served.service.engine):
        assert await asyncio.to_thread(in_a_child) == 0
        assert await work.enqueue(2) == Receipt(2)


async def test_two_queues_cannot_own_one_database(app: Shoestring) -> None:
    """The second is told who is there, and the first is not disturbed."""
    ran = asyncio.Event()

    @app.task
    async def work() -> None:
        ran.set()

    async with app.running():
        with pytest.raises(AlreadyOwned, match="embedded"):
            async with Shoestring(app.config).running():
                pass  # pragma: no cover - it is refused
        await work.enqueue()
        await ran.wait()


async def test_a_queue_whose_part_has_died_ends_what_it_is_embedded_in(app: Shoestring) -> None:
    """It would go on accepting work that nobody runs."""

    async def program() -> None:
        async with app.running() as service:
            assert service._failed is not None
            service._failed.set_exception(RuntimeError("the disk is on fire"))
            await asyncio.Event().wait()

    with pytest.raises(RuntimeError, match="the disk is on fire"):
        await program()


async def test_without_a_daemon_the_error_says_how_to_start_one(app: Shoestring) -> None:
    """Nothing is connected before it is needed, so this is where it is found out."""

    @app.task
    async def work() -> None:
        """Do nothing."""

    with pytest.raises(Unavailable, match=r"q\.sock \(there is no such socket\).*`shoestring run`"):
        await work.enqueue()
    with pytest.raises(Unavailable, match="`shoestring run`"):
        await asyncio.to_thread(work.enqueue_sync)
    app.close()


async def test_threads_of_a_synchronous_program_share_a_connection(app: Shoestring, serve: Serve) -> None:
    """A web app's worker has dozens of threads."""

    @app.task
    async def work(n: int) -> None:
        """Take a number."""

    served = await serve(app)
    receipts = await asyncio.gather(*(asyncio.to_thread(work.enqueue_sync, number) for number in range(50)))
    connections = served.server.connections
    await asyncio.to_thread(app.close)

    assert connections == 1
    assert sorted(receipt.task_id for receipt in receipts) == list(range(1, 51))


# -- Many at once ----------------------------------------------------------------------------------------------------


@pytest.fixture(params=["embedded", "socket"])
async def queue(request: pytest.FixtureRequest, app: Shoestring, serve: Serve) -> AsyncIterator[Served | None]:
    """The same promises in process and over the socket."""
    if request.param == "socket":
        yield await serve(app)
        await app.aclose()
    else:
        async with app.running():
            yield None


@pytest.mark.usefixtures("queue")
async def test_many_calls_come_back_as_receipts_in_their_order(app: Shoestring) -> None:
    """More than a slice of them, made while the ones before are on their way."""

    @app.task(queue="held", concurrency=1)
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    one = await app.enqueue_many([work.call(0)])
    receipts = await app.enqueue_many(work.call(number) for number in range(12_000))
    more = await app.enqueue_many(_asynchronously(work.call(number) for number in range(3)))
    none = await app.enqueue_many([])

    assert [receipt.task_id for receipt in one + receipts] == list(range(1, 12_002))
    assert (len(more), none) == (3, [])


async def _asynchronously(calls: Iterator[Call]) -> AsyncIterator[Call]:
    for call in calls:
        yield call


@pytest.mark.usefixtures("queue")
async def test_what_was_refused_of_many_is_told_one_by_one(app: Shoestring) -> None:
    """The caller enqueues the others again, and only those."""

    @app.task
    async def work(text: str) -> None:
        """Read it."""

    calls = [
        work.call("short"),
        work.call("x" * 70_000),
        work.using(unique="k").call("a"),
        work.using(unique="k").call("b"),
    ]
    with pytest.raises(PartlyStored, match="3 calls are stored") as caught:
        await app.enqueue_many(calls)

    first, refused, unique, duplicate = caught.value.results
    assert (first, unique) == (Receipt(1), Receipt(3))
    assert isinstance(refused, PayloadTooLarge)
    assert duplicate == Receipt(3, duplicate=True)


@pytest.mark.usefixtures("queue")
async def test_if_nothing_of_many_was_stored_the_error_is_the_error(app: Shoestring) -> None:
    """As with a single call."""

    @app.task
    async def work(text: str) -> None:
        """Read it."""

    with pytest.raises(PayloadTooLarge):
        await app.enqueue_many([work.call("x" * 70_000)])


@pytest.mark.usefixtures("queue")
async def test_calls_that_stop_coming_leave_none_stored_or_say_which(app: Shoestring) -> None:
    """The caller's generator raised: before the first slice nothing is stored, after it some are."""

    @app.task(queue="held", concurrency=1)
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    def calls(good: int) -> Iterator[Call]:
        for number in range(good):
            yield work.call(number)
        raise OSError("the database went away")

    with pytest.raises(OSError, match="the database went away"):
        await app.enqueue_many(calls(10))
    with pytest.raises(PartlyStored, match="OSError: the database went away") as caught:
        await app.enqueue_many(calls(5_010))
    first = await work.enqueue(1)

    assert len(caught.value.results) == 5_000
    assert isinstance(caught.value.__cause__, OSError)
    assert first == Receipt(5_001)


async def test_a_wrong_call_among_many_stores_nothing_before_the_first_slice(app: Shoestring) -> None:
    """The mistake is in the caller's line, and is raised there."""

    @app.task
    async def work(n: int) -> None:
        """Take a number."""

    values: list[object] = [1, 2, "three"]
    async with app.running() as service:
        with pytest.raises(ArgumentError, match="expected int, got str"):
            await app.enqueue_many(work.call(value) for value in values)  # type: ignore[arg-type]
        assert service.engine.status().ledger.accepted == 0


async def test_a_handler_among_calls_is_said_to_be_none(app: Shoestring) -> None:
    """Forgetting `.call(...)` ended in an AttributeError of ours."""

    @app.task
    async def work() -> None:
        """Nothing to do."""

    async with app.running():
        with pytest.raises(ArgumentError, match=r"work> is no call; give handler\.call\("):
            await app.enqueue_many([work])  # type: ignore[list-item]


async def test_many_go_at_the_pace_of_the_commits(app: Shoestring) -> None:
    """More than may wait for a commit at once is no error of who enqueues them."""
    slow = Shoestring(msgspec.structs.replace(app.config, limits=limits(submissions_max=100)))

    @slow.task(queue="held", concurrency=1)
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    async with slow.running():
        receipts = await slow.enqueue_many(work.call(number) for number in range(20_000))

    assert len(receipts) == 20_000


async def test_many_from_a_synchronous_program_are_made_in_its_own_thread(app: Shoestring, serve: Serve) -> None:
    """A database cursor belongs to the thread that opened it."""
    threads: set[int] = set()

    @app.task(queue="held", concurrency=1)
    async def work(n: int) -> None:
        await asyncio.Event().wait()

    def calls() -> Iterator[Call]:
        for number in range(6_000):
            threads.add(threading.get_ident())
            yield work.call(number)

    def program() -> tuple[int, list[Receipt]]:
        receipts = app.enqueue_many_sync(calls())
        app.close()
        return threading.get_ident(), receipts

    await serve(app)
    own, receipts = await asyncio.to_thread(program)

    assert threads == {own}
    assert len(receipts) == 6_000
