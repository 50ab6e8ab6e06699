"""A disk that remembers, and what may be left on it when the power goes.

`Recorder` is an SQLite VFS: everything written through it goes to real files, and is noted in order. `Disk` replays
the notes and builds the files as a power cut at any point may leave them. What it assumes is what POSIX promises and
no more:

* After a sync of a file its content stays. Before, each sector (512 bytes) of it holds what any of the writes since
  the last sync left in it: the newest, the oldest, one between. So writes are lost, torn and reordered at will.
* After a sync of the folder its names stay. Before, a file just made may be missing and one just deleted be back, with
  whatever its content has come to; `fdatasync` of a file does not save its name.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Final

import apsw

SECTOR: Final = 512


class Kind(enum.Enum):
    WRITE = "write"
    TRUNCATE = "truncate"
    SYNC = "sync"
    MAKE = "make"
    DELETE = "delete"
    SYNC_FOLDER = "sync folder"


@dataclass(frozen=True, slots=True)
class Op:
    """Something that was asked of the disk."""

    kind: Kind
    file: str = ""
    offset: int = 0  # of a write; the new size of a truncated file
    data: bytes = b""


class Recorder(apsw.VFS):
    """Notes what SQLite asks of the disk. Syncs are only noted: the real disk under the test stays alive."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.ops: list[Op] = []
        #: Called before each write to a file, with its name: where work goes on beside a checkpoint.
        self.before_write: Callable[[str], None] | None = None
        super().__init__(name, "unix")

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        if path is None:  # a temporary file without a name: nothing of it outlives its process
            return super().xOpen(name, flags)
        return _File(self, Path(path), name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802
        super().xDelete(filename, False)
        self.ops.append(Op(Kind.DELETE, Path(filename).name))
        if syncdir:
            self.ops.append(Op(Kind.SYNC_FOLDER))

    def write(self, path: Path, offset: int, data: bytes) -> None:
        """Write past SQLite, as the keeper does when it fills the WAL with zeros."""
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(data)
        self.ops.append(Op(Kind.WRITE, path.name, offset, data))

    def sync(self, path: Path) -> None:
        """Note the `fdatasync` that the keeper makes past SQLite."""
        self.ops.append(Op(Kind.SYNC, path.name))

    def sync_folder(self) -> None:
        self.ops.append(Op(Kind.SYNC_FOLDER))


class _File(apsw.VFSFile):
    def __init__(self, recorder: Recorder, path: Path, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self._recorder = recorder
        self._name = path.name
        is_new = not path.exists()
        super().__init__("unix", name, flags)
        if is_new:
            recorder.ops.append(Op(Kind.MAKE, self._name))
        # SQLite's own VFS syncs the folder with the first sync of a journal or WAL it made.
        self._syncs_folder = is_new and bool(flags[0] & (apsw.SQLITE_OPEN_MAIN_JOURNAL | apsw.SQLITE_OPEN_WAL))

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        if self._recorder.before_write is not None:
            self._recorder.before_write(self._name)
        super().xWrite(data, offset)
        self._recorder.ops.append(Op(Kind.WRITE, self._name, offset, bytes(data)))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802
        super().xTruncate(newsize)
        self._recorder.ops.append(Op(Kind.TRUNCATE, self._name, newsize))

    def xSync(self, flags: int) -> None:  # noqa: N802
        self._recorder.ops.append(Op(Kind.SYNC, self._name))
        if self._syncs_folder:
            self._syncs_folder = False
            self._recorder.ops.append(Op(Kind.SYNC_FOLDER))


@dataclass(slots=True)
class _Content:
    """One file's bytes: those that stay, and the writes that may or may not."""

    settled: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Op]] = field(default_factory=list)


@dataclass(slots=True)
class _Entry:
    """A name in the folder: what it stands for, and what it has come to stand for since the folder was synced."""

    settled: _Content | None = None
    pending: list[tuple[int, _Content | None]] = field(default_factory=list)

    @property
    def now(self) -> _Content | None:
        return self.pending[-1][1] if self.pending else self.settled


class Disk:
    """Replays what was noted, up to any point; `after_power_cut` builds what that point may leave."""

    def __init__(self, ops: list[Op], files: Mapping[str, bytes] = MappingProxyType({})) -> None:
        self._ops = ops
        self._at = 0
        #: `files` were there before the first operation, and had been for long.
        self._folder = {name: _Entry(_Content(bytearray(content))) for name, content in files.items()}

    def advance(self, to: int) -> None:
        """Replay up to the operation numbered `to`, which is not before the present one."""
        for number in range(self._at, to):
            self._replay(number, self._ops[number])
        self._at = to

    def _replay(self, number: int, op: Op) -> None:
        if op.kind is Kind.SYNC_FOLDER:
            for entry in self._folder.values():
                entry.settled, entry.pending = entry.now, []
            return
        entry = self._folder.setdefault(op.file, _Entry())
        if op.kind is Kind.MAKE:
            entry.pending.append((number, _Content()))
        elif op.kind is Kind.DELETE:
            entry.pending.append((number, None))
        else:
            content = entry.now
            assert content is not None, f"{op.kind} of {op.file}, which does not exist"
            if op.kind is Kind.SYNC:
                for _, each in content.pending:
                    _apply(content.settled, each)
                content.pending.clear()
            else:
                content.pending.append((number, op))

    def after_power_cut(self, rng: Random) -> dict[str, bytes]:
        """Return files, by name, as they may be found: one draw of the many."""
        if rng.random() < 0.2:
            return self._in_order(rng)
        found: dict[str, bytes] = {}
        for name, entry in self._folder.items():
            names = [entry.settled, *(content for _, content in entry.pending)]
            content = rng.choice(names)
            if content is not None:
                # Drawn per file: the worst is one file new and the other old.
                found[name] = _scatter(content, rng, rng.choice((0.0, 0.1, 0.5, 0.9, 1.0)))
        return found

    def _in_order(self, rng: Random) -> dict[str, bytes]:
        """As a disk leaves it that never reorders, but stops in the middle of a write."""
        oldest = min((n for e in self._folder.values() for c in _contents(e) for n, _ in c.pending), default=self._at)
        cut = rng.randint(oldest, self._at)
        found: dict[str, bytes] = {}
        for name, entry in self._folder.items():
            content = entry.settled
            for number, later in entry.pending:
                content = later if number < cut else content
            if content is None:
                continue
            image = bytearray(content.settled)
            for number, op in content.pending:
                if number < cut:
                    _apply(image, op)
                elif number == cut and op.kind is Kind.WRITE:
                    for start, part in _sectors(op)[: rng.randint(0, len(op.data) // SECTOR)]:
                        _put(image, start, part)
            found[name] = bytes(image)
        return found


def _contents(entry: _Entry) -> list[_Content]:
    return [each for each in (entry.settled, *(content for _, content in entry.pending)) if each is not None]


def _scatter(content: _Content, rng: Random, kept: float) -> bytes:
    """Return the content with each pending write kept (that often), lost or torn, and a lost sector lost for good.

    A write to a sector whose earlier write was lost cannot be there either: it would have brought that along.
    """
    image = bytearray(content.settled)
    lost: set[int] = set()
    for _, op in content.pending:
        if op.kind is Kind.TRUNCATE:
            if rng.random() < kept:
                _apply(image, op)
            continue
        is_kept = rng.random() < kept
        is_torn = not is_kept and rng.random() < kept
        for start, part in _sectors(op):
            sector = start // SECTOR
            if sector in lost:
                continue
            if is_kept or (is_torn and rng.random() < 0.5):
                _put(image, start, part)
            else:
                lost.add(sector)
    return bytes(image)


def _sectors(op: Op) -> list[tuple[int, bytes]]:
    """Return a write as its parts (offset, bytes), one a sector."""
    parts: list[tuple[int, bytes]] = []
    start, end = op.offset, op.offset + len(op.data)
    while start < end:
        stop = min((start // SECTOR + 1) * SECTOR, end)
        parts.append((start, op.data[start - op.offset : stop - op.offset]))
        start = stop
    return parts


def _apply(image: bytearray, op: Op) -> None:
    if op.kind is Kind.WRITE:
        _put(image, op.offset, op.data)
    elif len(image) > op.offset:
        del image[op.offset :]
    else:
        image.extend(bytes(op.offset - len(image)))


def _put(image: bytearray, offset: int, data: bytes) -> None:
    if len(image) < offset:
        image.extend(bytes(offset - len(image)))  # a hole reads as zeros
    image[offset : offset + len(data)] = data
