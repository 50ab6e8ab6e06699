"""The producer's end: one connection for everything, made again when it is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest

from shoestring import Shoestring
from shoestring.client import Client
from shoestring.core.errors import NotFound, PayloadTooLarge, Unavailable, UnknownVerb
from shoestring.core.model import Duplicate, Entry, JobSpec, Options
from shoestring.core.wire import encode_result
from tests.serving import Serve, Served, limits, small_config

WAIT_S = 30.0


def entry(number: int, options: Options | None = None) -> Entry:
    return Entry("mail", msgspec.Raw(b'{"n":%d}' % number), options)


def accepted(served: Served) -> int:
    return served.service.engine.status().ledger.accepted


class Between:
    """Stands between a client and a daemon, and may keep what the daemon answers to itself."""

    def __init__(self, path: Path, daemon: Path) -> None:
        self.path = path
        self._daemon = daemon
        self._server: asyncio.Server | None = None
        self.connections = 0
        #: Answers let through on each connection in turn; afterwards the connection is cut. None: all of them.
        self.lets_through: list[int | None] = []

    async def start(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        daemon_reader, daemon_writer = await asyncio.open_unix_connection(self._daemon)
        left = self.lets_through[self.connections] if self.connections < len(self.lets_through) else None
        self.connections += 1
        forwarding = asyncio.ensure_future(self._forward(reader, daemon_writer))
        with suppress(OSError):
            while line := await daemon_reader.readline():
                if left == 0:
                    break
                writer.write(line)
                left = None if left is None else left - 1
        forwarding.cancel()
        for each in (writer, daemon_writer):
            each.close()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
        writer.close()


Intercept = Callable[[Path], Awaitable[Between]]


@pytest.fixture
async def intercept() -> AsyncIterator[Intercept]:
    """Put something between client and daemon."""
    started: list[Between] = []

    async def between(daemon: Path) -> Between:
        one = Between(Path("between.sock"), daemon)
        await one.start()
        started.append(one)
        return one

    yield between
    for one in started:
        await one.close()


# -- Reaching the daemon ---------------------------------------------------------------------------------------------


async def test_a_daemon_that_is_not_there_is_named_with_the_command_that_starts_it(tmp_path: Path) -> None:
    """The first thing everybody forgets."""
    client = Client(tmp_path / "q.sock")

    with pytest.raises(Unavailable) as caught:
        await client.submit(entry(1))

    assert str(caught.value) == (
        f"no shoestring daemon answers at {tmp_path}/q.sock (there is no such socket). Nothing was sent. "
        "Start it with `shoestring run`, or set `socket` in shoestring.toml to where it listens."
    )
    assert isinstance(caught.value.__cause__, FileNotFoundError)


async def test_what_a_dead_daemon_left_says_that_nobody_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The path is there, which makes people think that the daemon is."""
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("q.sock")

    with pytest.raises(Unavailable, match="the socket is there, but nobody listens"):
        await Client("q.sock").ping()


async def test_every_waiting_call_gets_the_error_for_itself(tmp_path: Path) -> None:
    """One exception raised in a hundred places would mix their tracebacks."""
    client = Client(tmp_path / "q.sock")

    errors = await asyncio.gather(
        client.ping(), client.submit(entry(1)), client.submit(entry(2)), client.submit_many([entry(3)]),
        return_exceptions=True,
    )  # fmt: skip

    assert [type(error) for error in errors] == [Unavailable] * 4
    assert len({id(error) for error in errors}) == 4


async def test_a_path_nobody_can_listen_at_is_a_configuration_error_at_both_ends(tmp_path: Path) -> None:
    """The kernel's "AF_UNIX path too long" says neither which path nor what to do."""
    with pytest.raises(Unavailable, match="too long for a Unix socket; set a shorter one"):
        await Client(tmp_path / ("x" * 120)).ping()


async def test_a_daemon_that_is_late_is_waited_for_if_asked(serve: Serve) -> None:
    """Containers start in any order."""
    client = Client("q.sock", connect_timeout=WAIT_S)
    early = asyncio.ensure_future(client.ping())
    await asyncio.sleep(0)

    await serve()

    assert (await early).generation == 1
    await client.aclose()


async def test_a_daemon_with_a_full_backlog_is_waited_for(serve: Serve, tmp_path: Path) -> None:
    """It is there and busy; asyncio's own connect would "succeed" and fail at the first byte."""
    served = await serve()
    served.config.socket.rename("set-aside")
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(served.config.socket))
        busy.listen(0)
        first.connect(str(served.config.socket))
        with pytest.raises(Unavailable, match="its backlog is full"):
            await Client(served.config.socket, reconnect_timeout=0.0).ping()

        client = Client(served.config.socket)
        waiting = asyncio.ensure_future(client.ping())
        await asyncio.sleep(0)
        Path("set-aside").rename(served.config.socket)  # noqa: ASYNC240 - microseconds

        assert (await waiting).generation == 1
        await client.aclose()


async def test_a_daemon_that_takes_no_more_connections_says_so(serve: Serve) -> None:
    """Not that it is away: starting another would not help."""
    served = await serve(limits=limits(connections_max=1))
    async with Client(served.config.socket):
        with pytest.raises(Unavailable, match=r"takes no connection.*limits\.connections_max"):
            await Client(served.config.socket, reconnect_timeout=0.0).ping()


async def test_the_connection_is_made_at_the_first_call_and_shared_by_all(serve: Serve) -> None:
    """A thousand coroutines of a web app are one producer."""
    served = await serve()
    client = Client(served.config.socket)

    assert served.server.connections == 0
    await asyncio.gather(*(client.submit(entry(number)) for number in range(200)), *(client.ping() for _ in range(20)))

    assert served.server.connections == 1
    await client.aclose()


# -- Enqueuing -------------------------------------------------------------------------------------------------------


async def test_what_is_enqueued_at_once_shares_commits(serve: Serve) -> None:
    """A hundred producers that each paid for a commit would be ten times slower."""
    served = await serve()
    async with Client(served.config.socket) as client:
        await client.submit(entry(0))
        before = served.service.engine.status().commits

        stored = await asyncio.gather(*(client.submit(entry(number)) for number in range(1_000)))

        assert served.service.engine.status().commits - before <= 2
    assert stored == list(range(2, 1_002))


async def test_each_enqueue_gets_its_own_answer(serve: Serve) -> None:
    """They share a frame, not a fate."""
    served = await serve(limits=limits(payload_bytes_max=100, frame_bytes_max=5_000))
    too_long = Entry("mail", msgspec.Raw(b'{"text":"%s"}' % (b"x" * 200)))
    async with Client(served.config.socket) as client:
        await client.submit(entry(1, Options(unique="k")))

        results = await asyncio.gather(
            client.submit(entry(2)), client.submit(entry(3, Options(unique="k"))), client.submit(too_long),
            return_exceptions=True,
        )  # fmt: skip

    stored, duplicate, refused = results
    assert stored == 2
    assert duplicate == Duplicate(1)
    assert isinstance(refused, PayloadTooLarge)


async def test_a_cancelled_enqueue_leaves_its_neighbours_alone(serve: Serve) -> None:
    """One request of a web app that is closed by its browser shares the frame with others."""
    served = await serve()
    async with Client(served.config.socket) as client:
        futures = [client.submit(entry(number)) for number in range(3)]
        futures[1].cancel()

        kept = await asyncio.gather(futures[0], futures[2])

    assert list(kept) == [1, 3]  # the cancelled one was on its way already, and is stored
    assert accepted(served) == 3


async def test_many_are_cut_into_frames_the_daemon_takes(serve: Serve) -> None:
    """What one frame takes is the daemon's setting, and options count too."""
    served = await serve(limits=limits(payload_bytes_max=1_000, frame_bytes_max=5_000, user_chars_max=2_000))
    entries = [entry(number, Options(user="u" * 1_000)) for number in range(50)]
    async with Client(served.config.socket) as client:
        results = await client.submit_many(entries)

    assert results == list(range(1, 51))


async def test_what_no_frame_takes_is_refused_here(serve: Serve) -> None:
    """The daemon would close the connection on it, with everything else that is on its way."""
    served = await serve(limits=limits(payload_bytes_max=1_000, frame_bytes_max=5_000))
    huge = Entry("mail", msgspec.Raw(b'{"text":"%s"}' % (b"x" * 10_000)))
    async with Client(served.config.socket) as client:
        single, before, many = await asyncio.gather(
            client.submit(huge), client.submit(entry(1)), client.submit_many([entry(2), huge, entry(3)]),
            return_exceptions=True,
        )  # fmt: skip

    assert isinstance(single, PayloadTooLarge)
    assert isinstance(before, int)
    assert isinstance(many, list)
    assert [type(result) for result in many] == [int, PayloadTooLarge, int]
    assert accepted(served) == 3


async def test_more_changes_than_the_daemon_remembers_wait_their_turn(serve: Serve) -> None:
    """An answer beyond that could be lost and forgotten."""
    served = await serve()
    async with Client(served.config.socket) as client:
        answers = [client.cancel_task(number) for number in range(1, 301)]

        errors = await asyncio.gather(*answers, return_exceptions=True)

    assert [type(error) for error in errors] == [NotFound] * 300


async def test_an_error_of_the_daemon_is_raised_as_what_it_was(serve: Serve) -> None:
    """A caller catches NotFound, not an error number."""
    served = await serve()
    async with Client(served.config.socket) as client, Client(served.config.admin_socket) as admin:
        with pytest.raises(NotFound, match="there is no task 99"):
            await client.task(99)
        with pytest.raises(UnknownVerb, match="admin socket"):
            await client.tasks()
        assert (await admin.tasks(), await admin.discarded(), await admin.jobs()) == ([], [], [])


# -- Losing the connection -------------------------------------------------------------------------------------------


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_stored_twice(serve: Serve, intercept: Intercept) -> None:
    """The connection broke after the commit: the task is there, and its producer must learn its id."""
    served = await serve()
    between = await intercept(served.config.socket)
    between.lets_through = [1, 2]  # hello; hello and one answer; everything
    async with Client(between.path) as client:
        first = await client.submit(entry(1))
        second = await client.submit(entry(2))
        ids = await asyncio.gather(*(client.submit(entry(number)) for number in range(3, 50)))

    assert [first, second, *ids] == list(range(1, 50))
    assert between.connections == 3
    assert accepted(served) == 49


async def test_every_kind_of_change_is_done_once_over_lost_connections(serve: Serve, intercept: Intercept) -> None:
    """A job opened twice would never be sealed; a slice appended twice would run twice."""
    app = Shoestring(small_config(Path()))

    @app.task(name="mail")
    async def mail(n: int) -> None:
        """Take a number."""

    served = await serve(app)
    between = await intercept(served.config.socket)
    between.lets_through = [1, 2, 2, 2]  # hello only; then hello and one answer: each change's first answer is lost
    client = Client(between.path)

    job_id = await client.open_job(JobSpec(handler="mail"))
    assert await client.append_items(job_id, 0, msgspec.Raw(b"[1,2,3]")) == 3
    sealed = await client.seal_job(job_id)
    assert between.connections == 4
    done = await client.wait_job(job_id, version=2**53, timeout_s=WAIT_S)
    await client.aclose()

    assert (sealed.total, done.done) == (3, 3)
    assert served.service.engine.status().ledger.completed == 3


async def test_a_restart_of_the_daemon_is_not_noticed(serve: Serve) -> None:
    """It restarts to give memory back, in the middle of a web app's day."""
    served = await serve()
    async with Client(served.config.socket) as client:
        first = await client.submit(entry(1))
        await served.stop()
        waiting = asyncio.ensure_future(client.status())
        enqueued = client.submit(entry(2))
        await asyncio.sleep(0)

        await served.start()

        assert (await waiting).generation == 2
        assert first != await enqueued
        assert accepted(served) == 2


async def test_what_a_stopping_daemon_refuses_goes_to_the_next_one(serve: Serve) -> None:
    """Its socket is still there while it drains; nothing was done, so nothing needs to be told."""
    served = await serve()
    async with Client(served.config.socket) as client:
        await client.submit(entry(1))
        served.service.engine.intake.closed = True
        waiting = client.submit(entry(2))
        while client._link._turned_away_at is None:  # noqa: ASYNC110 - it is kept from its caller on purpose
            await asyncio.sleep(0)

        await served.stop()
        await served.start()

        await waiting
        assert accepted(served) == 2


async def test_a_daemon_that_does_not_come_back_is_unavailable_in_the_end(serve: Serve) -> None:
    """And the producer is told that what was on its way may have been stored."""
    served = await serve()
    client = Client(served.config.socket, reconnect_timeout=0.0)
    await client.ping()
    await served.stop()

    with pytest.raises(Unavailable, match="What was sent and not answered may have been stored"):
        await client.submit(entry(1))

    await served.start()
    await client.submit(entry(1))
    assert accepted(served) == 1
    await client.aclose()


async def test_an_answer_that_is_no_answer_ends_the_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something else listens at the path."""
    monkeypatch.chdir(tmp_path)

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example ESMTP\r\n")
        writer.close()

    async with await asyncio.start_unix_server(speak, "q.sock"):
        with pytest.raises(Unavailable, match="the answer cannot be read"):
            await Client("q.sock", reconnect_timeout=0.0).ping()


async def test_requests_that_end_the_daemon_each_time_are_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They would be sent again to each daemon the service manager starts, and end that one too."""
    monkeypatch.chdir(tmp_path)
    greeted = 0

    async def greet_and_die(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal greeted
        greeted += 1
        await reader.readline()
        hello = {"version": "1", "generation": greeted, "frame_bytes_max": 9_999, "payload_bytes_max": 999, "window": 9}
        writer.write(encode_result(0, hello))
        await reader.readline()
        writer.close()

    async with await asyncio.start_unix_server(greet_and_die, "q.sock"):
        client = Client("q.sock")
        with pytest.raises(Unavailable, match="closed the connection 8 times in a row without an answer"):
            await client.ping()

    assert greeted == 8


async def test_a_connection_lost_right_after_its_greeting_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written to it would vanish, and its answer be waited for for ever."""
    monkeypatch.chdir(tmp_path)

    async def greet_and_go(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        hello = {"version": "1", "generation": 1, "frame_bytes_max": 9_999, "payload_bytes_max": 999, "window": 9}
        writer.write(encode_result(0, hello))
        writer.close()

    async with await asyncio.start_unix_server(greet_and_go, "q.sock"):
        with pytest.raises(Unavailable):
            await Client("q.sock", reconnect_timeout=0.0).ping()


async def test_a_closed_client_says_so(serve: Serve) -> None:
    """What waits on it must not wait for ever."""
    served = await serve()
    client = Client(served.config.socket)
    waiting = asyncio.ensure_future(client.ping())
    await asyncio.sleep(0)

    await client.aclose()

    with pytest.raises(Unavailable, match="is closed"):
        await waiting
