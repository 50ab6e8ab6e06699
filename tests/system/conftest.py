"""A real daemon in a process of its own, told apart from being started by what it tells its service manager."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

#: What no test should ever need; a daemon that takes longer hangs.
PATIENCE_S = 30.0
LOOK_AGAIN_S = 0.002

T = TypeVar("T")

JOBS = """
import asyncio, os, socket, threading
from shoestring import Shoestring

app = Shoestring()


def tell(what):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as teller:
        teller.sendto(what.encode(), os.environ["TOLD"])


@app.task(name="say")
async def say(what: str) -> None:
    tell(what)


@app.task(name="interrupt")
async def interrupt() -> None:
    raise KeyboardInterrupt


@app.task(name="hang")
async def hang() -> None:
    tell("hanging")
    await asyncio.Event().wait()


@app.task(name="leave_thread")
def leave_thread() -> None:
    threading.Thread(target=threading.Event().wait, name="left", daemon=False).start()
    tell("left")
"""


class Ear:
    """A datagram socket that waits for what a daemon or its handlers tell."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(PATIENCE_S)

    def wait_for(self, beginning: str) -> str:
        """Return the next message that begins so; those before it are let pass."""
        while True:
            heard = self._socket.recv(10_000).decode()
            if heard.startswith(beginning):
                return heard

    def forget(self) -> None:
        """Let pass what was told so far; for a test that does not wait for all a daemon says before its end."""
        self._socket.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(10_000):
                pass
        self._socket.settimeout(PATIENCE_S)

    def close(self) -> None:
        self._socket.close()


@dataclass
class Daemon:
    """One started `shoestring run`."""

    process: subprocess.Popen[str]
    manager: Ear
    folder: Path
    stderr: str = field(default="", init=False)

    def wait_ready(self) -> str:
        return self.manager.wait_for("READY=1")

    def end(self) -> int:
        """Wait for the end and return the exit code; what was logged is in `stderr` then."""
        _, self.stderr = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode

    def call(self, method: str, params: object, sock: str = "shoestring.sock") -> dict[str, object]:
        """Ask one verb on a fresh connection."""
        return call(self.folder / sock, method, params)


def call(path: Path, method: str, params: object) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(PATIENCE_S)
        caller.connect(str(path))
        request = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        caller.sendall(msgspec.json.encode(request) + b"\n")
        with caller.makefile("rb") as answers:
            return msgspec.json.decode(answers.readline(), type=dict[str, object])


Start = Callable[..., Daemon]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Ear]:
    """What handlers tell with `tell`."""
    ear = Ear(tmp_path / "told")
    yield ear
    ear.close()


@pytest.fixture
def start(tmp_path: Path, told: Ear) -> Iterator[Start]:
    """Start daemons in `tmp_path`, where `jobs.py` holds the app; whatever still runs at the end is killed."""
    (tmp_path / "jobs.py").write_text(JOBS)
    manager = Ear(tmp_path / "notify")
    started: list[subprocess.Popen[str]] = []

    def start(
        *options: str,
        config: str = 'app = "jobs:app"',
        command: tuple[str, ...] = (),
        pass_fds: tuple[int, ...] = (),
    ) -> Daemon:
        (tmp_path / "shoestring.toml").write_text(config)
        env = {**os.environ, "NOTIFY_SOCKET": str(manager.path), "TOLD": str(told.path)}
        process = subprocess.Popen(
            [*(command or (sys.executable, "-m", "shoestring", "run")), *options],
            cwd=tmp_path,
            env=env,
            pass_fds=pass_fds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return Daemon(process, manager, tmp_path)

    yield start
    for process in started:
        process.kill()
        process.communicate()
    manager.close()


def wait_until(holds: Callable[[], T], what: str) -> T:
    """Return what `holds` returns once that is true; for what no process tells of itself, such as a file that grows."""
    clock = threading.Event()  # never set: its `wait` is the pause between two looks
    for _ in range(int(PATIENCE_S / LOOK_AGAIN_S)):
        if found := holds():
            return found
        clock.wait(LOOK_AGAIN_S)
    raise AssertionError(f"waited in vain for {what}")
