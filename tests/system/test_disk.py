"""The disk as it is met in the field: full, read-only, failing, and with a file on it that is not what it should be."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from shoestring.store import schema
from tests.system.conftest import Daemon, Ear, Start, wait_until

APP = """
import os
from shoestring import Shoestring
from jobs import tell

app = Shoestring()


@app.task(name="gate", queue="one")
def gate() -> None:
    tell("at the gate")
    with open("gate") as opened:  # a FIFO: waits for who opens its other end
        opened.read()


@app.task(name="note", queue="one")
async def note(n: int, filler: str = "") -> None:
    file = os.open("ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, b"%d\\n" % n)
    os.close(file)
"""

#: The database alone stands on the small disk, the sockets and what the handlers write stand beside it.
CONFIG = """
app = "noting:app"
database = "disk/q.db"
socket = "shoestring.sock"
admin_socket = "shoestring.admin.sock"
[queues.one]
concurrency = 1
[store]
wal_prefill_mib = 1
ballast_mib = 1
reserve_mib = {reserve_mib}
"""

SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* From when the file named by $DEVICE_FAILS is there, no WAL can be synced. */
int fdatasync(int fd)
{
    char link[64], path[4096];
    const char *switched = getenv("DEVICE_FAILS");
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length > 4 && !memcmp(path + length - 4, "-wal", 4) && switched && !access(switched, F_OK)) {
        errno = EIO;
        return -1;
    }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"""


class SmallDisk:
    """A file system of a few MiB."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, *, but: int = 0) -> None:
        """Take all the space there is, but so many bytes."""
        found = os.statvfs(self.path)
        with self._filler.open("ab") as filler:
            filler.write(bytes(found.f_bavail * found.f_frsize - but))

    def free(self) -> None:
        self._filler.unlink()

    def files(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in self.path.iterdir()}


def mount(*arguments: object) -> None:
    done = subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")


@pytest.fixture
def disk(tmp_path: Path, start: Start) -> Iterator[SmallDisk]:
    """A small disk at `disk`, with an app beside it."""
    path = tmp_path / "disk"
    path.mkdir()
    (tmp_path / "noting.py").write_text(APP)
    os.mkfifo(tmp_path / "gate")
    mount("-t", "tmpfs", "-o", "size=16m,mode=700", "tmpfs", path)
    yield SmallDisk(path)
    subprocess.run(["umount", "--lazy", "--recursive", path], check=True)  # lazy: a daemon may still be on it


def enqueue(daemon: Daemon, handler: str, **arguments: object) -> str:
    """Enqueue one task; return "" once it is stored, else the error's message."""
    answer = daemon.call("enqueue", {"tasks": [[handler, arguments]]})
    if "error" in answer:
        return json.dumps(answer["error"])
    result = answer["result"]
    assert isinstance(result, dict)
    return "" if "first" in result else json.dumps(result)


def status(daemon: Daemon) -> dict[str, object]:
    result = daemon.call("status", {})["result"]
    assert isinstance(result, dict)
    return result


def ran(daemon: Daemon) -> set[int]:
    path = daemon.folder / "ran"
    return {int(line) for line in path.read_text().split()} if path.exists() else set()


@pytest.mark.root
@pytest.mark.slow
def test_a_full_disk_refuses_what_is_new_and_runs_what_is_stored(start: Start, told: Ear, disk: SmallDisk) -> None:
    """An outage of the disk must not become one of the queue: what was promised is kept, and it mends itself."""
    daemon = start(config=CONFIG.format(reserve_mib=0))
    daemon.wait_ready()
    enqueue(daemon, "gate")
    told.wait_for("at the gate")
    disk.fill()

    stored: set[int] = set()
    refused = ""
    while not refused:
        assert len(stored) < 1_000
        refused = enqueue(daemon, "note", n=len(stored), filler="x" * 20_000)
        if not refused:
            stored.add(len(stored))
    assert "-32041" in refused
    assert "Nothing stored is lost" in refused
    assert len(stored) > 5

    (daemon.folder / "gate").write_text("")
    wait_until(lambda: ran(daemon) == stored, "what is stored to run on a full disk")
    disk.free()
    wait_until(lambda: enqueue(daemon, "note", n=1_000) == "", "new tasks to be taken again")
    daemon.process.send_signal(signal.SIGTERM)

    assert 0 == daemon.end()
    again = start(config=CONFIG.format(reserve_mib=0))
    again.wait_ready()
    wait_until(lambda: ran(daemon) == stored | {1_000}, "the last one")
    wait_until(lambda: status(again)["pending"] == 0, "the books")
    assert {"disk_filled", "disk_freed"} <= {json.loads(line)["event"] for line in daemon.stderr.splitlines()}


@pytest.mark.root
@pytest.mark.slow
def test_below_the_reserve_nothing_new_is_taken_until_there_is_space_again(start: Start, disk: SmallDisk) -> None:
    """The reserve is what lets stored work end; and nobody restarts a daemon at night because a log was rotated."""
    daemon = start(config=CONFIG.format(reserve_mib=8) + "checkpoint_pages = 100")  # the WAL itself stays small
    daemon.wait_ready()
    disk.fill(but=6 << 20)

    refused = wait_until(lambda: enqueue(daemon, "note", n=1), "the reserve to be noticed")
    assert "-32041" in refused
    assert "less than the reserve of 8 MiB: new tasks are refused, nothing was stored" in refused
    assert status(daemon)["accepting"] is False
    wait_until(lambda: status(daemon)["pending"] == 0, "what was taken before to run")

    disk.free()
    wait_until(lambda: enqueue(daemon, "note", n=2) == "", "new tasks to be taken again")
    assert status(daemon)["accepting"] is True


@pytest.mark.root
@pytest.mark.slow
def test_a_disk_that_is_full_at_the_start_is_exit_74_and_loses_nothing(start: Start, disk: SmallDisk) -> None:
    """After the reboot that was to mend things, the message must say what is wrong and that nothing is lost."""
    first = start(config=CONFIG.format(reserve_mib=0))
    first.wait_ready()
    first.call("enqueue", {"tasks": [["note", {"n": 1}, {"delay_ms": 3_600_000}]]})
    first.process.kill()
    first.end()
    (disk.path / "q.db-ballast").unlink()
    disk.fill()

    full = start(config=CONFIG.format(reserve_mib=0))
    assert 74 == full.end()
    assert "Traceback" not in full.stderr
    assert full.stderr.startswith("error: ")
    assert "Nothing" in full.stderr

    disk.free()
    again = start(config=CONFIG.format(reserve_mib=0))
    again.wait_ready()
    assert 1 == status(again)["delayed"]


@pytest.mark.root
@pytest.mark.parametrize("is_there", [False, True], ids=["no database yet", "a database"])
def test_a_read_only_folder_is_exit_74_and_left_as_it_is(start: Start, disk: SmallDisk, is_there: bool) -> None:
    """A disk that was remounted read-only after an error is the last place to change anything."""
    if is_there:
        make_database(disk.path / "q.db")
    before = disk.files()
    mount("-o", "remount,ro", disk.path)

    daemon = start(config=CONFIG.format(reserve_mib=0))

    assert 74 == daemon.end()
    assert "disk/q.db" in daemon.stderr
    assert "Nothing was changed" in daemon.stderr
    assert before == disk.files()


@pytest.mark.root
def test_a_read_only_file_is_exit_74_and_left_as_it_is(start: Start, disk: SmallDisk) -> None:
    """SQLite opens such a file all the same, for reading; a daemon on it would fail at its first task."""
    make_database(disk.path / "q.db")
    before = (disk.path / "q.db").read_bytes()
    mount("--bind", disk.path / "q.db", disk.path / "q.db")
    mount("-o", "remount,bind,ro", disk.path / "q.db")

    daemon = start(config=CONFIG.format(reserve_mib=0))

    assert 74 == daemon.end()
    assert "disk/q.db cannot be opened for writing" in daemon.stderr
    assert "Nothing was changed" in daemon.stderr
    assert before == (disk.path / "q.db").read_bytes()


@pytest.mark.slow
def test_a_sync_that_fails_ends_it_with_74_and_the_next_start_recovers(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells of pages it could not write once, and then calls them clean: to try again is to lie."""
    shim = tmp_path / "shim.so"
    compiler = shutil.which("cc") or pytest.skip("needs a C compiler, cc")
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c", "-o", shim, "-"], input=SHIM.encode(), check=True)
    monkeypatch.setenv("DEVICE_FAILS", str(tmp_path / "fails"))
    with monkeypatch.context() as preloaded:
        preloaded.setenv("LD_PRELOAD", str(shim))
        daemon = start()
    daemon.wait_ready()
    later = {"delay_ms": 3_600_000, "durability": "durable"}
    daemon.call("enqueue", {"tasks": [["say", {"what": "safe"}, later]]})

    (tmp_path / "fails").touch()
    daemon.call("enqueue", {"tasks": [["say", {"what": "relaxed"}, {"delay_ms": 3_600_000}]]})

    assert 74 == daemon.end()
    assert "fdatasync" in daemon.stderr
    assert "Work answered as durable before is safe" in daemon.stderr
    again = start()
    again.wait_ready()
    assert 2 == status(again)["delayed"]


@pytest.mark.parametrize(
    ("kind", "code", "says"),
    [
        ("garbage", 74, "is not a readable SQLite database"),
        ("truncated", 74, "Nothing was changed"),
        ("overwritten", 74, "is damaged"),
        ("another program's", 74, "is a database of another program"),
        ("of a newer version", 78, "Install the version that wrote it, or a later one"),
    ],
)
def test_a_file_it_cannot_use_is_refused_and_not_touched(
    start: Start, tmp_path: Path, kind: str, code: int, says: str
) -> None:
    """Whatever can still be salvaged from the file is gone once a program has "repaired" it."""
    path = tmp_path / "shoestring.db"
    make_database(path)
    whole = path.read_bytes()
    if kind == "garbage":
        path.write_bytes(b"not a database, " * 1_000)
    elif kind == "truncated":
        path.write_bytes(whole[: len(whole) // 2])
    elif kind == "overwritten":
        path.write_bytes(whole[:8_192] + b"\xff" * 4_096 + whole[12_288:])
    elif kind == "another program's":
        write(path, "PRAGMA application_id = 7")
    else:
        write(path, "PRAGMA user_version = 99")
    before = path.read_bytes()

    daemon = start()

    assert code == daemon.end(), daemon.stderr
    assert says in daemon.stderr
    assert "Nothing was changed" in daemon.stderr
    assert "Traceback" not in daemon.stderr
    assert before == path.read_bytes()


def make_database(path: Path) -> None:
    """Make a database as a stopped daemon leaves it, of some dozens of pages."""
    with closing(schema.open_database(path)) as conn:
        conn.executemany("INSERT INTO handlers (name) VALUES (?)", [(f"{n:x>200}",) for n in range(500)])


def write(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(statement)
