"""The power goes at any moment: whatever the disk then holds, the queue opens, balances and keeps what it promised."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from types import MappingProxyType

import pytest

pytest.importorskip("apsw", reason="apsw is not installed: only it can put a recording VFS under SQLite")

from shoestring.store.schema import connect
from tests.store.power.connection import RecordedConnection
from tests.store.power.disk import Disk, Kind, Recorder
from tests.store.power.life import NAME, OURS, Discipline, Recording, record, record_recovery
from tests.store.power.verdict import DAMAGED, LOST_DURABLE, NO_PREFIX, OK, digest_of, judge


@dataclass
class Tally:
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def add(self, where: str, verdict: str, details: str) -> None:
        self.verdicts[verdict] += 1
        if verdict != OK:
            self.findings.append(f"{where}: {verdict}: {details}")


def cut_power(folder: Path, seed: int, states: int, discipline: Discipline = OURS, *, lives: int = 3) -> Tally:
    """Record some lives, cut the power at `states` moments of them, and judge what is left each time."""
    folder.mkdir()
    recording = record(folder, seed, lives=lives, discipline=discipline)
    tally, rng = Tally(), Random(seed)
    for cut, files in states_of(recording, moments(recording, rng, states), rng):
        with laid(folder / "left", files) as left:
            tally.add(f"seed {seed}, power cut after operation {cut}", *judge(left, recording, cut))
    return tally


def moments(recording: Recording, rng: Random, count: int) -> list[int]:
    """Draw where to cut: one half anywhere, the other right before or after something that is not a write."""
    rare = [number for number, op in enumerate(recording.ops) if op.kind is not Kind.WRITE]
    half = [rng.choice(rare) + rng.randint(0, 1) for _ in range(count // 2)]
    return half + [rng.randint(0, len(recording.ops)) for _ in range(count - len(half))]


def states_of(
    recording: Recording, cuts: Iterable[int], rng: Random, files: Mapping[str, bytes] = MappingProxyType({})
) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Build what each cut leaves; `files` were there before."""
    disk = Disk(recording.ops, files)
    for cut in sorted(cuts):
        disk.advance(cut)
        yield cut, disk.after_power_cut(rng)


@contextmanager
def laid(folder: Path, files: Mapping[str, bytes]) -> Iterator[Path]:
    """Have the files in a folder for a while."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    yield folder
    shutil.rmtree(folder)


def cut_power_twice(folder: Path, seed: int, first: int, second: int) -> Tally:
    """Cut the power `first` times, and `second` times again during the start on each of what that left."""
    folder.mkdir()
    recording = record(folder, seed)
    tally, rng = Tally(), Random(seed)
    for cut, files in states_of(recording, moments(recording, rng, first), rng):
        with laid(folder / "copy", files) as left:
            found = digest_of(left)
        with laid(folder / "recovering", files) as left:
            recovery = record_recovery(left, seed, found)
        again = [rng.randint(0, len(recovery.ops)) for _ in range(second)]
        for later, remains in states_of(recovery, again, rng, files):
            with laid(folder / "left", remains) as left:
                where = f"seed {seed}, power cut after operation {cut}, and {later} of the start after it"
                tally.add(where, *judge(left, recovery, later))
    return tally


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_power_cut_leaves_a_prefix_of_the_commits_with_all_that_was_synced(tmp_path: Path, seed: int) -> None:
    """The promise of `durable`, and that nothing is ever half there: books, chunks, items, unique keys."""
    tally = cut_power(tmp_path / "life", seed, 100)
    assert [] == tally.findings
    assert {OK: 100} == tally.verdicts


def test_a_power_cut_while_the_file_is_made_leaves_one_that_opens(tmp_path: Path) -> None:
    """The first seconds on a new machine: a file half made must not need a person."""
    recording = record(tmp_path, 1, lives=1)
    tally, rng = Tally(), Random(1)
    every = [cut for cut in range(recording.commits[1].begun_at + 20) for _ in range(2)]
    for cut, files in states_of(recording, every, rng):
        with laid(tmp_path / "left", files) as left:
            tally.add(f"power cut after operation {cut}", *judge(left, recording, cut))
    assert [] == tally.findings


def test_a_second_power_cut_during_the_recovery_takes_nothing_more(tmp_path: Path) -> None:
    """A failing supply cuts more than once; what the first cut left is safe from the next."""
    tally = cut_power_twice(tmp_path / "life", 1, 12, 4)
    assert [] == tally.findings


def test_without_synchronous_normal_the_same_cuts_corrupt(tmp_path: Path) -> None:
    """That this disk is cruel enough to find what must not be: our own syncs alone do not keep a file whole."""
    tally = cut_power(tmp_path / "life", 1, 60, Discipline(synchronous="OFF"))
    assert tally.verdicts[DAMAGED] + tally.verdicts[NO_PREFIX] > 0


def test_an_answer_before_the_sync_is_found_out(tmp_path: Path) -> None:
    """That a lost durable batch is noticed when there is one."""
    tally = cut_power(tmp_path / "life", 1, 60, Discipline(syncs_before_ack=False))
    assert tally.verdicts[LOST_DURABLE] > 0


def test_the_lives_go_through_what_is_dangerous(tmp_path: Path) -> None:
    """A history without checkpoints, a WAL used again, or commits beside a checkpoint would find nothing."""
    recording = record(tmp_path, 1)
    assert recording.wal_begun >= 10
    assert recording.beside >= 3
    assert sum(op.kind is Kind.DELETE and op.file.endswith("-wal") for op in recording.ops) == 1
    assert sum(each.is_durable for each in recording.commits) >= 10


def test_the_recorded_connection_has_the_settings_of_the_real_one(tmp_path: Path) -> None:
    """A simulation of other settings would prove nothing about ours."""
    recorder = Recorder("settings")
    recorded = RecordedConnection(tmp_path / NAME, recorder, synchronous=OURS.synchronous)
    with closing(connect(tmp_path / "real.db")) as real:
        for name in ("trusted_schema", "cell_size_check", "synchronous", "wal_autocheckpoint", "page_size"):
            assert real.execute(f"PRAGMA {name}").fetchone() == recorded.execute(f"PRAGMA {name}").fetchone(), name
    recorded.close()
    recorder.unregister()


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(100, 120))
def test_campaign(tmp_path: Path, seed: int) -> None:
    """Many more cuts of longer histories; `-s` shows the figures."""
    tally = cut_power(tmp_path / "life", seed, 500, lives=6)
    twice = cut_power_twice(tmp_path / "twice", seed, 20, 5)
    print(f"seed {seed}: {dict(tally.verdicts)}, cut twice: {dict(twice.verdicts)}")
    assert [] == tally.findings + twice.findings
