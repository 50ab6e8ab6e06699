"""Brokers the peers need, started for one measurement on private sockets and ended with it."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.peers.peer import Broker

#: A server that has not answered after this does not come up.
START_S_MAX = 30.0


@dataclass(frozen=True, slots=True)
class Running:
    """Where a producer finds the broker, and the process of its server."""

    where: str
    pid: int | None


def missing(broker: Broker) -> str | None:
    """Say which server is not installed, or None."""
    if broker == "redis" and shutil.which("redis-server") is None:
        return "no redis-server (Debian: apt install redis-server)"
    if broker == "postgres" and _postgres_folder() is None:
        return "no PostgreSQL server (Debian: apt install postgresql)"
    if broker == "postgres" and os.geteuid() == 0 and _postgres_user() is None:
        return "PostgreSQL does not run as root, and there is no user `postgres` to run it as"
    return None


@contextlib.contextmanager
def running(broker: Broker, folder: Path) -> Iterator[Running]:
    """Start a broker with its data in `folder`; a file queue needs none and gets the folder itself."""
    match broker:
        case "none":
            yield Running(str(folder), None)
        case "redis":
            with _redis(folder) as found:
                yield found
        case "postgres":
            with _postgres(folder) as found:
                yield found


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[Running]:
    path = folder / "redis.sock"
    # Durable as far as it goes without a flush for every task: what a careful user runs.
    keep = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
    command = ["redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(folder), *keep]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, process_group=0)
    with _ended(server, signal.SIGTERM):
        _wait_until(lambda: _connects(path), server)
        yield Running(f"unix://{path}?db=0", server.pid)


@contextlib.contextmanager
def _postgres(folder: Path) -> Iterator[Running]:
    binaries = _postgres_folder()
    assert binaries is not None
    user = _postgres_user() if os.geteuid() == 0 else None
    data = folder / "pg"
    data.mkdir(mode=0o700)
    if user is not None:
        os.chown(folder, user.pw_uid, user.pw_gid)
        os.chown(data, user.pw_uid, user.pw_gid)
    name = user.pw_name if user is not None else None
    subprocess.run(
        [str(binaries / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C"],
        check=True, stdout=subprocess.DEVNULL, user=name, cwd="/",
    )  # fmt: skip
    server = subprocess.Popen(
        [str(binaries / "postgres"), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=name, cwd="/", process_group=0,
    )  # fmt: skip
    with _ended(server, signal.SIGINT):  # "fast": ends the sessions that are left
        _wait_until(lambda: _accepts(binaries, folder), server)
        yield Running(str(folder), server.pid)


@contextlib.contextmanager
def _ended(server: subprocess.Popen[bytes], politely: signal.Signals) -> Iterator[None]:
    try:
        yield
    finally:
        server.send_signal(politely)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_until(ready: Callable[[], bool], server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S_MAX
    while not ready():
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{server.args!r} did not come up; it ended with {server.returncode}")
        time.sleep(0.02)


def _connects(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _accepts(binaries: Path, folder: Path) -> bool:
    command = [str(binaries / "pg_isready"), "-q", "-h", str(folder)]
    return subprocess.run(command, check=False).returncode == 0


def _postgres_folder() -> Path | None:
    """Return the folder with the server's programs; Debian keeps it off the PATH."""
    found = shutil.which("postgres")
    places = [Path(found).resolve().parent] if found else []
    places += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    needed = ("postgres", "initdb", "pg_isready")
    return next((place for place in places if all((place / name).exists() for name in needed)), None)


def _postgres_user() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return None
