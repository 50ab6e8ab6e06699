"""Programs without an event loop, and loops that come and go."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import pytest

from shoestring.client import BlockingClient, Client, LoopThread
from shoestring.core.errors import Unavailable
from shoestring.core.model import Entry
from shoestring.engine.registry import Registry
from tests.serving import Served, small_config


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """A queue that runs in another thread."""
    monkeypatch.chdir(tmp_path)
    thread = LoopThread()
    served = Served(small_config(Path()), Registry())
    thread.run(served.start())
    yield served
    thread.run(served.stop())
    thread.close()


def client_threads() -> int:
    return sum(thread.name == "shoestring-client" for thread in threading.enumerate())


def test_a_program_without_a_loop_has_the_same_verbs(served: Served) -> None:
    """Most web apps are synchronous."""
    with BlockingClient(served.config.socket) as client:
        assert client.ping().generation == 1
        assert client.enqueue("mail", {"n": 1}) == 1
        assert client.submit_many([Entry("mail", msgspec.Raw(b"{}"))] * 3) == [2, 3, 4]
        assert client.task(1).handler == "mail"
        assert client.cancel_task(1).task_id == 1
        assert client.status().ledger.cancelled == 1


def test_threads_share_one_connection(served: Served) -> None:
    """A web app's worker has dozens; each with its own connection would be hundreds."""
    with BlockingClient(served.config.socket) as client, ThreadPoolExecutor(20) as pool:
        stored = list(pool.map(lambda number: client.enqueue("mail", {"n": number}), range(200)))

        assert served.server.connections == 1
    assert sorted(map(str, stored)) == sorted(map(str, range(1, 201)))


def test_an_error_is_raised_in_the_calling_thread(tmp_path: Path) -> None:
    """With the remedy, as everywhere."""
    with BlockingClient(tmp_path / "q.sock") as client, pytest.raises(Unavailable, match="shoestring run"):
        client.ping()


def test_closing_ends_the_thread_and_another_call_starts_one(served: Served) -> None:
    """Nothing is left behind, and nothing is for ever broken."""
    before = client_threads()
    client = BlockingClient(served.config.socket)
    client.ping()

    client.close()
    after = client_threads()
    again = client.ping()
    client.close()

    assert (after, again.generation) == (before, 1)


def test_a_client_nobody_closed_is_cleaned_up_with_it(served: Served) -> None:
    """Programs forget; a thread and a socket for each forgotten client would add up."""
    before = client_threads()
    client = BlockingClient(served.config.socket)
    client.ping()

    del client
    gc.collect()

    assert client_threads() == before


def test_a_forked_child_gets_a_connection_of_its_own(served: Served) -> None:
    """Preforking servers import the app, and may enqueue, before they fork."""
    client = BlockingClient(served.config.socket)
    client.enqueue("mail", {"n": 1})

    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if client.enqueue("mail", {"n": 2}) == 2 else 1)
        finally:
            os._exit(2)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert client.enqueue("mail", {"n": 3}) == 3
    client.close()


def test_a_loop_that_ends_closes_the_connections_made_in_it(served: Served) -> None:
    """`asyncio.run(main())` of a script that enqueues ends without a warning, though nobody closed anything."""

    async def main() -> object:
        return await Client(served.config.socket).enqueue("mail", {"n": 1})

    assert asyncio.run(main()) == 1
    gc.collect()  # an unclosed transport would warn now, and warnings are errors here


def test_an_interrupted_wait_is_cancelled(served: Served) -> None:
    """Ctrl-C in a script that waits must not leave its request running in the background."""
    thread = LoopThread()
    begun = threading.Event()
    ended: list[str] = []

    async def wait() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(thread.run, wait())
        begun.wait()
        thread.close()

        assert isinstance(waiting.exception(), BaseException)
    assert ended == ["cancelled"]
