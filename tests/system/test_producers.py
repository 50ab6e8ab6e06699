"""Producers in processes of their own, in numbers, well-behaved and not, and a daemon that is restarted under them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import select
import signal
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from shoestring.client import Client
from shoestring.core.errors import Unavailable
from tests.system.conftest import PATIENCE_S, Daemon, Start, call, wait_until

APP = """
import os
from shoestring import Shoestring

app = Shoestring()


@app.task(name="note")
async def note(who: int, n: int) -> None:
    file = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, b"%d.%d\\n" % (who, n))
    os.close(file)
"""

#: Enqueues on many connections until its standard input is closed; then prints what was acknowledged.
PRODUCER = """
import asyncio, sys
from shoestring.client import Client

CLIENTS = 10


async def produce(who: int, enough: asyncio.Event) -> None:
    n = 0
    async with Client("shoestring.sock", connect_timeout=30, reconnect_timeout=30) as client:
        while not enough.is_set():
            await client.enqueue("note", {"who": who, "n": n})
            acknowledged.append(f"{who}.{n}")
            n += 1


async def main(first: int) -> None:
    enough = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for who in range(first, first + CLIENTS):
            group.create_task(produce(who, enough))
        await asyncio.to_thread(sys.stdin.read)
        enough.set()


acknowledged: list[str] = []
asyncio.run(main(CLIENTS * int(sys.argv[1])))
print("\\n".join(acknowledged))
"""

NOTING = 'app = "noting:app"\n[store]\nreserve_mib = 0\nballast_mib = 1\n'


def frame(method: str, params: object = None, request_id: object = 1) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "method": method, "params": params or {}}) + b"\n"


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


@pytest.mark.slow
def test_restarts_under_many_producers_lose_nothing_and_run_nothing_twice(start: Start, tmp_path: Path) -> None:
    """A deployment is a restart: neither the web app nor its users may notice one."""
    (tmp_path / "noting.py").write_text(APP)
    producers = [
        subprocess.Popen(
            [sys.executable, "-c", PRODUCER, str(number)],
            cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(4)
    ]  # fmt: skip
    try:
        for _ in range(3):
            daemon = start(config=NOTING)
            wait_for_more_to_run(tmp_path / "ran", 1_000)
            daemon.process.send_signal(signal.SIGTERM)
            assert 0 == daemon.end()
            daemon.manager.forget()
        last = start(config=NOTING)
        last.wait_ready()
        ended = [producer.communicate(timeout=PATIENCE_S) for producer in producers]
    finally:
        for producer in producers:
            producer.kill()
    acknowledged = [each for out, _ in ended for each in out.split()]
    wait_until(lambda: status(last)["pending"] == 0, "what is left")

    assert [""] * 4 == [err for _, err in ended]
    ran = Counter(lines(tmp_path / "ran"))
    assert set(acknowledged) == set(ran)
    assert {1} == set(ran.values())


def wait_for_more_to_run(path: Path, count: int) -> None:
    goal = len(lines(path)) + count
    wait_until(lambda: len(lines(path)) >= goal, f"{count} tasks to run")


def status(daemon: Daemon) -> dict[str, object]:
    result = daemon.call("status", {})["result"]
    assert isinstance(result, dict)
    return result


@pytest.mark.parametrize("was_there", [False, True], ids=["never started", "killed"])
def test_without_a_daemon_the_error_names_the_socket_and_the_command(
    start: Start, tmp_path: Path, was_there: bool
) -> None:
    """The first error anybody meets; it should take a minute, not an hour."""
    if was_there:
        daemon = start()
        daemon.wait_ready()
        daemon.process.kill()
        daemon.end()
    path = tmp_path / "shoestring.sock"

    async def enqueue() -> None:
        async with Client(path) as client:
            await client.enqueue("say", {"what": "hello"})

    with pytest.raises(Unavailable) as refused:
        asyncio.run(enqueue())

    why = "the socket is there, but nobody listens" if was_there else "there is no such socket"
    assert f"no shoestring daemon answers at {path} ({why}). Nothing was sent." in str(refused.value)
    assert "`shoestring run`" in str(refused.value)


def test_what_is_no_frame_is_answered_with_an_error_and_harms_nobody(start: Start) -> None:
    """Sooner or later somebody points a browser, a scanner or a bug at the socket."""
    daemon = start(config='app = "jobs:app"\n[limits]\nframe_bytes_max = 70000')
    daemon.wait_ready()
    dice = random.Random(1)
    noise = [dice.randbytes(dice.randrange(1, 500)).replace(b"\n", b"") + b"\n" for _ in range(100)]
    neighbour = connected(daemon)

    for bad in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"x" * 70_001,  # oversized, and without an end
        b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}\n',
        b'{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}\n',
        b"[" * 60_000 + b"\n",
        b"\xff\xfe\n",
        b"null\n",
        *noise,
    ):
        with connected(daemon) as peer, peer.makefile("rb") as answers:
            with contextlib.suppress(BrokenPipeError):  # it may have hung up in the middle of what is too much
                peer.sendall(bad)
            answer = json.loads(answers.readline())
            assert answer["error"]["code"] in (-32700, -32600), (bad[:80], answer)
            assert answer["error"]["message"]

    neighbour.sendall(frame("ping"))
    with neighbour.makefile("rb") as answers:
        assert b'"generation":1' in answers.readline()
    neighbour.close()
    daemon.process.send_signal(signal.SIGTERM)
    assert 0 == daemon.end()
    assert "exception_lost" not in daemon.stderr


def connected(daemon: Daemon) -> socket.socket:
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(PATIENCE_S)
    peer.connect(str(daemon.folder / "shoestring.sock"))
    return peer


def test_a_client_that_never_reads_is_not_read_and_holds_nobody_up(start: Start) -> None:
    """One stopped producer (a debugger, a full pipe) must not fill the daemon's memory with its answers."""
    daemon = start()
    daemon.wait_ready()
    before = status(daemon)["rss_bytes"]
    asked = frame("status") * 100
    with connected(daemon) as deaf:
        deaf.setblocking(False)
        sent = 0
        # Half a second without room to write is not timed, it is only when this test stops trying.
        while select.select([], [deaf], [], 0.5)[1]:
            sent += deaf.send(asked)
            assert sent < 64 << 20

        after = status(daemon)["rss_bytes"]
        assert isinstance(before, int) and isinstance(after, int)
        assert after - before < 16 << 20


def test_one_connection_too_many_is_told_so_and_the_others_stay(start: Start) -> None:
    """600 web workers on a limit of 512: 88 must be told why, and find their place when another leaves."""
    daemon = start()
    daemon.wait_ready()
    with contextlib.ExitStack() as open_sockets:
        peers = [open_sockets.enter_context(connected(daemon)) for _ in range(600)]
        refused = peers[512:]
        for peer in refused:
            with peer.makefile("rb") as answers:
                assert "512 connections are open" in json.loads(answers.readline())["error"]["message"]
                assert b"" == answers.readline()
        for peer in peers[:512]:
            peer.sendall(frame("ping"))
            with peer.makefile("rb") as answers:
                assert b'"generation":1' in answers.readline()

        peers[0].close()
        wait_until(lambda: "result" in call(daemon.folder / "shoestring.sock", "ping", {}), "a place to be free")


@pytest.mark.slow
def test_of_daemons_started_at_once_one_runs_and_the_others_exit_4(start: Start) -> None:
    """A service manager, a cron job and an impatient operator may all start one in the same second."""
    daemons = [start() for _ in range(3)]
    daemons[0].wait_ready()

    wait_until(lambda: sum(daemon.process.poll() is not None for daemon in daemons) == 2, "two to give up")
    (owner,) = (daemon for daemon in daemons if daemon.process.poll() is None)
    others = [daemon for daemon in daemons if daemon is not owner]
    assert [4, 4] == [daemon.end() for daemon in others]
    assert status(owner)["pid"] == owner.process.pid
    assert status(owner)["generation"] == 1
