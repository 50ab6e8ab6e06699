"""One owner per database file, told by the kernel."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.core.errors import AlreadyOwned, ConfigError, StorageError
from shoestring.lock import Holder, OwnerLock, lock_path, read_holder

ME = Holder(pid=os.getpid(), started_at_ms=1_790_000_000_000, socket="/srv/q.sock")


def test_the_second_owner_is_refused_and_told_who_the_first_is(tmp_path: Path) -> None:
    """Two daemons on one file would each run the other's tasks; the message must save a search."""
    database = tmp_path / "q.db"
    first = OwnerLock.acquire(database, ME)

    with pytest.raises(AlreadyOwned) as caught:
        OwnerLock.acquire(database, ME)

    assert str(caught.value) == (
        f"{database} is owned by process {os.getpid()}, running since 2026-09-21 14:13:20 UTC, which listens on"
        f" /srv/q.sock. Nothing was changed. Use that one (`shoestring status`), stop it (`kill {os.getpid()}`),"
        " or set another `database`."
    )
    assert caught.value.exit_code == 4
    first.release()


def test_a_released_database_can_be_owned_again(tmp_path: Path) -> None:
    """A restart must not need a clean-up by hand."""
    OwnerLock.acquire(tmp_path / "q.db", ME).release()

    again = OwnerLock.acquire(tmp_path / "q.db", ME)

    assert read_holder(tmp_path / "q.db") == ME
    again.release()
    assert read_holder(tmp_path / "q.db") is None


def test_a_process_that_was_killed_owns_nothing(tmp_path: Path) -> None:
    """After `kill -9` the next start must come up by itself."""
    database = tmp_path / "q.db"
    program = (
        "import os, sys; from pathlib import Path; from shoestring.lock import Holder, OwnerLock;"
        "lock = OwnerLock.acquire(Path(sys.argv[1]), Holder(pid=os.getpid(), started_at_ms=1, socket='s'));"
        "os.kill(os.getpid(), 9)"
    )

    died = subprocess.run([sys.executable, "-c", program, str(database)], check=False)

    left = read_holder(database)
    assert (died.returncode, left is not None and left.socket) == (-9, "s")
    OwnerLock.acquire(database, ME).release()


def test_the_generation_is_added_when_it_is_known(tmp_path: Path) -> None:
    """The lock comes before the database, in which the generation stands."""
    lock = OwnerLock.acquire(tmp_path / "q.db", ME)

    lock.describe(generation=12)

    holder = read_holder(tmp_path / "q.db")
    assert holder is not None
    assert holder.generation == 12
    lock.release()


def test_two_names_of_one_database_share_one_lock(tmp_path: Path) -> None:
    """A symbolic link to the file must not let a second daemon in."""
    (tmp_path / "link.db").symlink_to(tmp_path / "q.db")
    lock = OwnerLock.acquire(tmp_path / "q.db", ME)

    with pytest.raises(AlreadyOwned):
        OwnerLock.acquire(tmp_path / "link.db", ME)

    lock.release()


def test_a_holder_that_died_and_left_a_child_is_not_blamed(tmp_path: Path) -> None:
    """`kill` of a number that now belongs to nobody, or to somebody else, would be the wrong advice."""
    process = subprocess.Popen(["true"])
    process.wait()
    lock = OwnerLock.acquire(tmp_path / "q.db", Holder(pid=process.pid, started_at_ms=0, socket="s"))

    with pytest.raises(AlreadyOwned, match=r"left behind owns .* Find it with `fuser"):
        OwnerLock.acquire(tmp_path / "q.db", ME)

    lock.release()


def test_only_the_owner_may_read_who_holds_it(tmp_path: Path) -> None:
    """The lock file stands in folders others may list."""
    lock = OwnerLock.acquire(tmp_path / "q.db", ME)

    assert stat.S_IMODE(lock.path.stat().st_mode) == 0o600
    assert lock.path == tmp_path / "q.db.lock"
    lock.release()


def test_a_link_in_the_lock_files_place_is_refused(tmp_path: Path) -> None:
    """Following it would truncate a file of the attacker's choice."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_path(tmp_path / "q.db").symlink_to(victim)

    with pytest.raises(ConfigError, match="is a symbolic link"):
        OwnerLock.acquire(tmp_path / "q.db", ME)

    assert victim.read_text() == "precious"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The most frequent typo of all."""
    with pytest.raises(ConfigError, match=f"Create {tmp_path}/none, or correct the path"):
        OwnerLock.acquire(tmp_path / "none" / "q.db", ME)


def test_a_folder_that_cannot_be_written_is_a_disk_error() -> None:
    """Exit code 74 tells the service manager that another start will not help by itself."""
    with pytest.raises(StorageError, match="cannot be written") as caught:
        OwnerLock.acquire(Path("/sys/q.db"), ME)

    assert caught.value.exit_code == 74
