"""The power goes at any moment: whatever the disk then holds, the queue opens, balances and keeps what it promised."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

pytest.importorskip("apsw", reason="apsw is not installed: only it can put a recording VFS under SQLite")

from shoestring.store.schema import connect
from tests.store.power.connection import RecordedConnection
from tests.store.power.disk import Disk, Kind, Recorder
from tests.store.power.life import NAME, OURS, Discipline, Recording, record
from tests.store.power.verdict import DAMAGED, LOST_DURABLE, NO_PREFIX, OK, judge


@dataclass
class Tally:
    verdicts: Counter[str] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)


def cut_power(folder: Path, seed: int, states: int, discipline: Discipline = OURS, *, lives: int = 3) -> Tally:
    """Record some lives, cut the power at `states` moments of them, and judge what is left each time."""
    folder.mkdir()
    recording = record(folder, seed, lives=lives, discipline=discipline)
    tally = Tally()
    for cut, files in states_of(recording, seed, states):
        left = folder / "left"
        left.mkdir()
        for name, content in files.items():
            (left / name).write_bytes(content)
        verdict, details = judge(left, recording, cut)
        shutil.rmtree(left)
        tally.verdicts[verdict] += 1
        if verdict != OK:
            tally.findings.append(f"seed {seed}, power cut after operation {cut}: {verdict}: {details}")
    return tally


def states_of(recording: Recording, seed: int, states: int) -> Iterator[tuple[int, dict[str, bytes]]]:
    rng = Random(seed)
    disk = Disk(recording.ops)
    for cut in sorted(rng.randint(0, len(recording.ops)) for _ in range(states)):
        disk.advance(cut)
        yield cut, disk.after_power_cut(rng)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_power_cut_leaves_a_prefix_of_the_commits_with_all_that_was_synced(tmp_path: Path, seed: int) -> None:
    """The promise of `durable`, and that nothing is ever half there: books, chunks, items, unique keys."""
    tally = cut_power(tmp_path / "life", seed, 100)
    assert [] == tally.findings
    assert {OK: 100} == tally.verdicts


def test_without_synchronous_normal_the_same_cuts_corrupt(tmp_path: Path) -> None:
    """That this disk is cruel enough to find what must not be: our own syncs alone do not keep a file whole."""
    tally = cut_power(tmp_path / "life", 1, 100, Discipline(synchronous="OFF"))
    assert tally.verdicts[DAMAGED] + tally.verdicts[NO_PREFIX] > 0


def test_an_answer_before_the_sync_is_found_out(tmp_path: Path) -> None:
    """That a lost durable batch is noticed when there is one."""
    tally = cut_power(tmp_path / "life", 1, 100, Discipline(syncs_before_ack=False))
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
    print(f"seed {seed}: {dict(tally.verdicts)}")
    assert [] == tally.findings
