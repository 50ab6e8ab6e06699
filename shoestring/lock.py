"""One process owns a database file: a lock file beside it, and in it who holds it.

The lock is `flock` on `<database>.lock`, not on the database: opening and closing the database file itself would drop
the POSIX locks SQLite holds on it. The kernel lets go when the process dies, however it dies, so there is no lease
to renew and nothing stale to clean up. The file itself stays: removing it would let two processes hold locks on two
files of the same name.
"""

from __future__ import annotations

import errno
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from shoestring.core.errors import AlreadyOwned, ConfigError, StorageError


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """Who owns the database, as the lock file tells it."""

    pid: int
    started_at_ms: int
    socket: str
    generation: int | None = None  # None until the database is open

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started_at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return f"process {self.pid}, running since {since}, which listens on {self.socket}"


class OwnerLock:
    """The held lock. Keep it as long as the database is open; `release` it after."""

    __slots__ = ("_fd", "_holder", "path")

    def __init__(self, path: Path, fd: int, holder: Holder) -> None:
        self.path = path
        self._fd = fd
        self._holder = holder

    @classmethod
    def acquire(cls, database: Path, holder: Holder) -> OwnerLock:
        """Take the lock of `database` for `holder`, at once or not at all.

        Raises AlreadyOwned naming who holds it, ConfigError when the path cannot be used and StorageError when the
        disk refuses. Nothing of the database has been touched then.
        """
        path = lock_path(database)
        fd = _open(path, database)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AlreadyOwned(_owned(database, _parse(_contents(fd)))) from None
            lock = cls(path, fd, holder)
            lock._write(holder)
        except OSError as error:
            os.close(fd)
            raise StorageError(
                f"The lock file {path} cannot be used: {error.strerror}. Nothing was changed."
                " Put the database on a local disk that can be written."
            ) from error
        except BaseException:
            os.close(fd)
            raise
        return lock

    def describe(self, *, generation: int) -> None:
        """Add what is known only once the database is open."""
        self._write(msgspec.structs.replace(self._holder, generation=generation))

    def release(self) -> None:
        """Let go; the file stays, empty, so that nobody reads of a holder that left."""
        if self._fd >= 0:
            try:
                os.ftruncate(self._fd, 0)
            except OSError:  # a full or failed disk; closing is what counts
                pass
            os.close(self._fd)
            self._fd = -1

    def _write(self, holder: Holder) -> None:
        line = msgspec.json.encode(holder) + b"\n"
        os.pwrite(self._fd, line, 0)
        os.ftruncate(self._fd, len(line))
        self._holder = holder


def lock_path(database: Path) -> Path:
    """Return the lock file's path; links are followed, so that two names of one database share one lock."""
    real = Path(os.path.realpath(database))
    return real.with_name(real.name + ".lock")


def read_holder(database: Path) -> Holder | None:
    """Return who last held `database`, None if nobody says so. Takes no lock: the holder may be gone."""
    try:
        fd = os.open(lock_path(database), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return _parse(_contents(fd))
    finally:
        os.close(fd)


def _open(path: Path, database: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise ConfigError(
            f"The folder of database = {database} does not exist. Create {path.parent}, or correct the path."
        ) from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ConfigError(f"{path} is a symbolic link, which a lock file must not be. Remove it.") from None
        if error.errno in (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
            raise ConfigError(f"{path}: {error.strerror}. Correct database = {database}.") from None
        raise StorageError(
            f"The lock file {path} cannot be written: {error.strerror}. Nothing was changed."
            " Let this user write to the folder, on a disk that is not read-only or full."
        ) from error


def _contents(fd: int) -> bytes:
    return os.pread(fd, 4_096, 0)


def _parse(contents: bytes) -> Holder | None:
    try:
        return msgspec.json.decode(contents, type=Holder)
    except msgspec.DecodeError:  # caught between two writes, or written by something else
        return None


def _owned(database: Path, holder: Holder | None) -> str:
    if holder is None or not _alive(holder.pid):
        who = "Another process" if holder is None else f"A process that {holder} left behind"
        return (
            f"{who} owns {database}. Nothing was changed."
            f" Find it with `fuser {lock_path(database)}` and stop it, or set another `database`."
        )
    return (
        f"{database} is owned by {holder}. Nothing was changed. Use that one (`shoestring status`),"
        f" stop it (`kill {holder.pid}`), or set another `database`."
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False  # a child that was forked off, not started, keeps the lock of a dead parent
    except OSError:
        return True
    return True
