"""The socket: who may connect, what comes in, and what a peer can cost."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shoestring import Shoestring
from shoestring.api.commands import VERBS, verbs
from shoestring.api.server import PATH_BYTES_MAX, Server
from shoestring.core.errors import ConfigError
from tests.serving import Serve, limits, small_config

HELLO = {"client": "0" * 32}


class Peer:
    """A client that writes what it is told to and reads lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def at(cls, path: Path) -> Peer:
        return cls(*await asyncio.open_unix_connection(path, limit=1 << 24))

    def write(self, method: str, params: object, request_id: object = 1) -> None:
        self.writer.write(
            json.dumps({"jsonrpc": "2.0", "method": method, "params": params, "id": request_id}).encode() + b"\n"
        )

    async def read(self) -> dict[str, Any]:
        return dict(json.loads(await self.reader.readline()))

    async def ask(self, method: str, params: object, request_id: object = 1) -> dict[str, Any]:
        self.write(method, params, request_id)
        return await self.read()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):  # the daemon may have closed first
            await self.writer.wait_closed()


@pytest.fixture
def app() -> Shoestring:
    """An app with one handler, in the test's folder."""
    app = Shoestring(small_config(Path()))

    @app.task(name="mail")
    async def mail(n: int) -> None:
        """Take a number and be done."""

    return app


Connect = Callable[[Path], Awaitable[Peer]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connect to a path; closed after the test."""
    connected: list[Peer] = []

    async def at(path: Path) -> Peer:
        peer = await Peer.at(path)
        connected.append(peer)
        return peer

    yield at
    for peer in connected:
        await peer.close()


async def test_ping_tells_version_and_generation(serve: Serve, connect: Connect) -> None:
    """The least a peer can ask."""
    served = await serve()
    peer = await connect(served.config.socket)

    answer = await peer.ask("ping", {}, "a")

    assert answer == {"jsonrpc": "2.0", "id": "a", "result": {"version": "0.1.0", "generation": 1}}


async def test_hello_tells_what_a_client_must_keep_to(serve: Serve, connect: Connect) -> None:
    """A client that knows the limits never meets them as a closed connection."""
    served = await serve(limits=limits(frame_bytes_max=100_000))
    peer = await connect(served.config.socket)

    answer = await peer.ask("hello", HELLO)

    assert answer["result"] == {
        "version": "0.1.0",
        "generation": 1,
        "frame_bytes_max": 100_000,
        "payload_bytes_max": 65_536,
        "window": 64,
    }


def test_producers_have_no_verbs_that_see_or_replay_what_others_sent() -> None:
    """The producers' socket is open to a group; the lists show everybody's arguments."""
    assert set(VERBS) - set(verbs(admin=False)) == {"tasks", "jobs", "discarded", "discarded.replay"}
    assert set(verbs(admin=True)) == set(VERBS)


async def test_a_verb_of_the_administrator_is_named_as_such(serve: Serve, connect: Connect) -> None:
    """Who used the wrong socket should not look for a missing feature."""
    served = await serve()
    peer = await connect(served.config.socket)

    admins = await peer.ask("tasks", {})
    nobodys = await peer.ask("frobnicate", {})

    assert admins["error"]["code"] == nobodys["error"]["code"] == -32601
    assert "admin socket only" in admins["error"]["message"]
    assert "there is no verb 'frobnicate' in shoestring 0.1.0" in nobodys["error"]["message"]


async def test_a_misspelt_parameter_is_an_error(serve: Serve, connect: Connect) -> None:
    """Ignored, a misspelt filter lists everything."""
    served = await serve()
    peer = await connect(served.config.admin_socket)

    answer = await peer.ask("tasks", {"quue": "mail"})

    assert answer["error"]["code"] == -32602
    assert "quue" in answer["error"]["message"]


async def test_a_line_that_is_no_request_is_answered_and_the_next_one_read(serve: Serve, connect: Connect) -> None:
    """One bad message of a pipelined connection must not take the others with it."""
    served = await serve()
    peer = await connect(served.config.socket)

    peer.writer.write(b'{"jsonrpc":"2.0","method":"ping","id":1,"id":2}\n{"a":NaN}\nnot json\n')
    peer.write("ping", {}, 5)
    answers = [await peer.read() for _ in range(4)]

    assert [answer["id"] for answer in answers] == [None, None, None, 5]
    assert [answer["error"]["code"] for answer in answers[:3]] == [-32700] * 3
    assert "twice" in answers[0]["error"]["message"]


async def test_a_frame_over_the_limit_ends_the_connection_with_the_reason(serve: Serve, connect: Connect) -> None:
    """Where the next frame begins is not known; what was not read costs no memory."""
    served = await serve(limits=limits(frame_bytes_max=70_000))
    peer = await connect(served.config.socket)

    peer.writer.write(b"[" * 200_000)
    answer = await peer.read()

    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    assert "70,000" in answer["error"]["message"]
    assert await peer.reader.read() == b""


async def test_a_notification_is_carried_out_and_not_answered(serve: Serve, connect: Connect) -> None:
    """JSON-RPC lets a peer not care."""
    served = await serve()
    peer = await connect(served.config.socket)

    peer.writer.write(b'{"jsonrpc":"2.0","method":"enqueue","params":{"tasks":[["mail",{}]]}}\n')
    answer = await peer.ask("enqueue", {"tasks": [["mail", {}]]}, 2)

    assert answer["result"] == {"first": 2, "count": 1}
    assert served.service.engine.status().ledger.accepted == 2


async def test_what_became_of_each_task_is_told_in_order(serve: Serve, connect: Connect) -> None:
    """Ids in a row as two numbers; anything else one by one."""
    served = await serve(limits=limits(payload_bytes_max=100, frame_bytes_max=5_000))
    peer = await connect(served.config.socket)

    plain = await peer.ask("enqueue", {"tasks": [["mail", {"n": 1}], ["mail", {"n": 2}]]})
    unique = await peer.ask("enqueue", {"tasks": [["mail", {"n": 3}, {"unique": "k"}]]})
    mixed = await peer.ask(
        "enqueue",
        {"tasks": [["mail", {"n": 4}], ["mail", {"n": 5}, {"unique": "k"}], ["mail", {"text": "x" * 200}]]},
    )
    none = await peer.ask("enqueue", {"tasks": []})

    first = plain["result"]["first"]
    assert plain["result"] == {"first": first, "count": 2}
    held = unique["result"]["first"]
    stored, duplicate, refused = mixed["result"]["results"]
    assert stored > held
    assert duplicate == {"duplicate_of": held}
    assert refused["error"]["code"] == -32011
    assert none["result"] == {"results": []}


async def test_pipelined_requests_are_all_answered(serve: Serve, connect: Connect) -> None:
    """More than the connection takes at once: the rest waits in the socket."""
    served = await serve()
    peer = await connect(served.config.socket)

    for number in range(1_000):
        peer.write("enqueue", {"tasks": [["mail", {"n": number}]]}, number)
    answers = [await peer.read() for _ in range(1_000)]

    assert sorted(answer["id"] for answer in answers) == list(range(1_000))
    assert len({answer["result"]["first"] for answer in answers}) == 1_000


async def test_a_peer_that_does_not_read_is_not_read_from(serve: Serve, connect: Connect) -> None:
    """Its answers would pile up in the daemon's memory."""
    served = await serve()
    loop = asyncio.get_running_loop()
    request = b'{"jsonrpc":"2.0","method":"ping","id":1}\n' * 100
    with socket.socket(socket.AF_UNIX) as peer:
        peer.setblocking(False)
        peer.connect(str(served.config.socket))
        other = await connect(served.config.socket)
        sent = bytearray()
        refused_in_a_row = 0
        while refused_in_a_row < 20:  # until the kernel's buffers are full in both directions, and stay full
            try:
                part = request[len(sent) % len(request) :]
                sent += part[: peer.send(part)]
                refused_in_a_row = 0
            except BlockingIOError:
                refused_in_a_row += 1
                await other.ask("ping", {})  # lets the daemon do what it can, and shows that it still serves others

        answers = 0
        whole = sent.count(b"\n")
        while answers < whole:
            answers += (await loop.sock_recv(peer, 1 << 16)).count(b"\n")

    assert answers == whole


async def test_a_frame_that_is_begun_and_not_ended_ends_the_connection(serve: Serve, connect: Connect) -> None:
    """A peer that stalls holds what it has sent in the daemon's memory."""
    served = await serve(frame_timeout_s=0.01)
    peer = await connect(served.config.socket)

    whole = await peer.ask("ping", {})
    peer.writer.write(b'{"jsonrpc":"2.0",')
    answer = await peer.read()

    assert whole["id"] == 1
    assert (answer["id"], answer["error"]["code"]) == (None, -32700)
    assert await peer.reader.read() == b""


async def test_a_peer_that_sends_no_more_still_gets_its_answers(serve: Serve, connect: Connect) -> None:
    """`echo '{...}' | nc -UN shoestring.sock` closes its direction before it reads."""
    served = await serve()
    peer = await connect(served.config.socket)

    for number in range(200):
        peer.write("enqueue", {"tasks": [["mail", {"n": number}]]}, number)
    peer.writer.write_eof()
    answers = (await peer.reader.read()).splitlines()

    assert sorted(json.loads(answer)["id"] for answer in answers) == list(range(200))


async def test_a_refused_peer_reads_why_whatever_it_was_sending(serve: Serve, connect: Connect) -> None:
    """Closed at once, it would see "connection reset" and nothing else."""
    served = await serve(limits=limits(frame_bytes_max=70_000))
    peer = await connect(served.config.socket)

    for _ in range(40):
        peer.writer.write(b"[" * 100_000)
        with suppress(ConnectionError):
            await peer.writer.drain()
    answer = await peer.read()

    assert "70,000" in answer["error"]["message"]
    assert await peer.reader.read() == b""


async def test_a_silent_connection_is_left_alone(serve: Serve, connect: Connect) -> None:
    """A web app's worker may enqueue once a week; its connection costs a socket."""
    served = await serve(frame_timeout_s=0.01)
    peer = await connect(served.config.socket)
    await peer.ask("ping", {})
    stalled = await connect(served.config.socket)
    stalled.writer.write(b"{")
    await stalled.read()  # its time is up, so the silent one's would have been too

    assert (await peer.ask("ping", {}))["id"] == 1


async def test_one_connection_too_many_is_told_so(serve: Serve, connect: Connect) -> None:
    """Rather than a socket that is closed without a word."""
    served = await serve(limits=limits(connections_max=2))
    peers = [await connect(served.config.socket) for _ in range(2)]
    for peer in peers:
        await peer.ask("ping", {})

    third = await connect(served.config.socket)
    answer = await third.read()

    assert answer["error"]["code"] == -32030
    assert answer["error"]["data"] == {"retry_after": 1.0}
    assert "limits.connections_max" in answer["error"]["message"]
    assert await third.reader.read() == b""


async def test_waiting_for_a_job_holds_nothing_up(serve: Serve, connect: Connect, app: Shoestring) -> None:
    """A long poll shares its connection with everything else its process does."""
    served = await serve(app)
    peer = await connect(served.config.socket)
    job = (await peer.ask("job.open", {"handler": "mail"}))["result"]["job_id"]
    version = (await peer.ask("job.progress", {"job_id": job}))["result"]["version"]

    peer.write("job.wait", {"job_id": job, "version": version, "timeout_s": 60}, "wait")
    first = await peer.ask("ping", {}, "ping")
    peer.write("job.seal", {"job_id": job}, "seal")
    rest = {answer["id"]: answer for answer in [await peer.read(), await peer.read()]}

    assert first["id"] == "ping"
    assert rest["wait"]["result"]["version"] > version
    assert rest["seal"]["result"]["state"] == "done"


async def test_waits_end_with_their_connection(serve: Serve, connect: Connect, app: Shoestring) -> None:
    """Nobody would read their answers."""
    served = await serve(app)
    before = len(asyncio.all_tasks())
    peer = await connect(served.config.socket)
    job = (await peer.ask("job.open", {"handler": "mail"}))["result"]["job_id"]
    for number in range(10):
        peer.write("job.wait", {"job_id": job, "version": 10**9, "timeout_s": 60}, number)
    await peer.ask("ping", {}, "ping")
    assert len(asyncio.all_tasks()) >= before + 10

    await peer.close()

    while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - this is the assertion; it fails by never ending
        await asyncio.sleep(0)


async def test_a_frame_sent_again_is_done_once(serve: Serve, connect: Connect) -> None:
    """A client that lost its connection does not know what arrived, and must be able to ask."""
    served = await serve()
    tasks = {"tasks": [["mail", {"n": 1}]]}
    first = await connect(served.config.socket)
    await first.ask("hello", HELLO, 0)
    before = await first.ask("enqueue", tasks, 1)
    await first.close()

    second = await connect(served.config.socket)
    await second.ask("hello", HELLO, 0)
    again = await second.ask("enqueue", tasks, 1)
    other = await second.ask("enqueue", tasks, 2)

    assert again == before
    assert other["result"]["first"] == before["result"]["first"] + 1
    assert served.service.engine.status().ledger.accepted == 2


async def test_what_is_being_done_when_it_is_asked_again_is_answered_there(serve: Serve, connect: Connect) -> None:
    """The first connection is gone before the commit; its answer is waited for on the second."""
    served = await serve()
    tasks = {"tasks": [["mail", {"n": 1}, {"durability": "durable"}]]}
    first = await connect(served.config.socket)
    await first.ask("hello", HELLO, 0)
    second = await connect(served.config.socket)

    first.write("enqueue", tasks, 1)
    first.writer.close()
    await second.ask("hello", HELLO, 0)
    answer = await second.ask("enqueue", tasks, 1)

    assert answer["result"]["count"] == 1
    assert served.service.engine.status().ledger.accepted == 1


async def test_a_job_whose_producer_is_gone_is_sealed_with_the_reason(
    serve: Serve, connect: Connect, app: Shoestring
) -> None:
    """A web app's worker is killed in the middle of a fan-out; nobody else can say that no more items come."""
    served = await serve(app, away_s=0.0)
    producer = await connect(served.config.socket)
    await producer.ask("hello", HELLO, 0)
    job = (await producer.ask("job.open", {"handler": "mail"}))["result"]["job_id"]
    await producer.ask("job.append", {"job_id": job, "seq": 0, "items": [1, 2, 3]}, 2)
    watcher = await connect(served.config.socket)

    await producer.close()
    ended = (await watcher.ask("job.wait", {"job_id": job, "version": 2**53}))["result"]

    assert (ended["state"], ended["total"], ended["done"]) == ("done", 3, 3)
    assert "its producer lost its connection and did not come back" in ended["error"]


async def test_a_job_that_was_open_at_a_restart_is_sealed_if_its_producer_stays_away(
    serve: Serve, connect: Connect, app: Shoestring
) -> None:
    """Daemon and producer die together, as at a power cut: nobody else remembers whose job it was."""
    served = await serve(app)
    producer = await connect(served.config.socket)
    await producer.ask("hello", HELLO, 0)
    job = (await producer.ask("job.open", {"handler": "mail"}))["result"]["job_id"]
    await producer.close()
    await served.stop()

    await served.start(away_s=0.0)
    watcher = await connect(served.config.socket)
    ended = (await watcher.ask("job.wait", {"job_id": job, "version": 2**53}))["result"]

    assert ended["state"] == "done"
    assert "did not come back" in ended["error"]


async def test_a_producer_that_comes_back_finds_its_job_open(serve: Serve, connect: Connect, app: Shoestring) -> None:
    """A lost connection is no lost producer."""
    served = await serve(app)
    first = await connect(served.config.socket)
    await first.ask("hello", HELLO, 0)
    job = (await first.ask("job.open", {"handler": "mail"}))["result"]["job_id"]
    feeds = served.server._feeds
    await first.close()
    while not feeds._timers:  # noqa: ASYNC110 - that its time runs is seen nowhere else
        await asyncio.sleep(0)

    second = await connect(served.config.socket)
    await second.ask("hello", HELLO, 0)
    left_to_come = len(feeds._timers)
    appended = await second.ask("job.append", {"job_id": job, "seq": 0, "items": [1]}, 2)
    sealed = await second.ask("job.seal", {"job_id": job}, 3)
    await second.close()
    while served.server.connections:  # noqa: ASYNC110
        await asyncio.sleep(0)

    assert (left_to_come, len(feeds._timers), len(feeds._jobs)) == (0, 0, 0)
    assert appended["result"] == {"accepted": 1}
    assert sealed["result"]["error"] is None


async def test_closing_answers_what_was_taken_on(serve: Serve, connect: Connect) -> None:
    """A planned restart must not make producers guess."""
    served = await serve()
    peer = await connect(served.config.socket)
    await peer.ask("ping", {})
    taken = served.server._connections.copy().pop()._calls

    peer.write("enqueue", {"tasks": [["mail", {}, {"durability": "durable"}]]})
    while not taken.unanswered:  # noqa: ASYNC110 - nothing outside tells that a request was taken on
        await asyncio.sleep(0)
    await served.server.close()
    answer = await peer.read()

    assert answer["result"]["count"] == 1
    assert await peer.reader.read() == b""
    assert not served.config.socket.exists()


async def test_the_sockets_are_open_to_whom_they_should_be(serve: Serve) -> None:
    """Producers by their group; the administrator's to the daemon's user only. Never to everybody, at no moment."""
    before = os.umask(0)
    try:
        served = await serve()
    finally:
        os.umask(before)

    assert stat.S_IMODE(served.config.socket.stat().st_mode) == 0o660
    assert stat.S_IMODE(served.config.admin_socket.stat().st_mode) == 0o600


async def test_the_mode_does_not_depend_on_the_umask(serve: Serve) -> None:
    """Under 077 the group would be locked out, and only on some machines."""
    before = os.umask(0o077)
    try:
        served = await serve()
    finally:
        os.umask(before)

    assert stat.S_IMODE(served.config.socket.stat().st_mode) == 0o660


async def test_what_a_killed_daemon_left_is_replaced(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    """kill -9 leaves the path behind; the next start must not need a hand."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "q.sock"))

    served = await serve()
    peer = await connect(served.config.socket)

    assert (await peer.ask("ping", {}))["id"] == 1


async def test_what_is_no_socket_is_left_alone(serve: Serve, tmp_path: Path) -> None:
    """A typo in the path must not delete a file."""
    served = await serve()
    precious = tmp_path / "precious.txt"
    precious.write_text("mine")

    with pytest.raises(ConfigError, match="is not a socket; it is left alone"):
        await Server(engine=served.service.engine, config=served.config).start(precious)

    assert precious.read_text() == "mine"


async def test_a_path_that_cannot_be_bound_is_a_configuration_error(serve: Serve, tmp_path: Path) -> None:
    """The kernel says "AF_UNIX path too long" or errno 2; neither says what to change."""
    served = await serve()
    server = Server(engine=served.service.engine, config=served.config)

    with pytest.raises(ConfigError, match=f"at most {PATH_BYTES_MAX}"):
        await server.start(tmp_path / ("x" * 100))
    with pytest.raises(ConfigError, match="Its folder must exist"):
        await server.start(tmp_path / "no" / "q.sock")


async def test_a_socket_that_was_bound_by_another_is_served_and_kept(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    """systemd's socket unit owns the path: clients queue on it while the daemon restarts."""
    served = await serve()
    server = Server(engine=served.service.engine, config=served.config)
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind("passed.sock")

        await server.start(passed)
        peer = await connect(Path("passed.sock"))
        answer = await peer.ask("ping", {})
        await server.close()

    assert answer["id"] == 1
    assert (tmp_path / "passed.sock").exists()


async def test_a_later_daemons_socket_is_not_removed_by_the_one_before(serve: Serve, connect: Connect) -> None:
    """A restart overlaps: the old one must not take the new one's path away."""
    old = await serve()
    new = Server(engine=old.service.engine, config=old.config)
    await new.start(old.config.socket)

    await old.server.close()
    peer = await connect(old.config.socket)

    assert (await peer.ask("ping", {}))["id"] == 1
    await new.close()
