"""The comparison with other queues: every peer that can run here enqueues, drains and is counted.

Run with `pytest -m peers tests/bench`; the figures come from `python -m tests.bench.peers`.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from shoestring.bench.device import open_device
from tests.bench.peers import tally
from tests.bench.peers.catalog import PEERS
from tests.bench.peers.harness import missing, play
from tests.bench.peers.peer import Peer


@pytest.mark.peers
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_a_peer_runs_every_task_it_was_given(peer: Peer) -> None:
    """A figure of a queue that lost or skipped tasks would flatter it."""
    reason = missing(peer)
    if reason is not None:
        pytest.skip(reason)

    with open_device(None) as device:
        device.folder.parent.chmod(0o711)
        found = play(peer, device, tasks=300)

    assert found.drained.runs >= 300
    assert found.one.per_second > 0


def test_runs_are_added_up_over_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker may be several processes; each counts for itself."""
    monkeypatch.setenv(tally.FOLDER, str(tmp_path))
    (tmp_path / "1").write_bytes(tally.SLOT.pack(3, 1_000_000_000, 3_000_000_000))
    (tmp_path / "2").write_bytes(tally.SLOT.pack(4, 2_000_000_000, 5_000_000_000))
    (tmp_path / "3").write_bytes(tally.SLOT.pack(0, 0, 0))  # opened, and has run nothing yet

    assert tally.read(tmp_path) == tally.Tally(runs=7, seconds=4.0)


def test_a_run_is_counted_where_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count stands in the file before the handler returns: whoever waits sees it at once."""
    monkeypatch.setenv(tally.FOLDER, str(tmp_path))
    slot = tally.Slot()

    slot.count()
    slot.count()

    assert tally.read(tmp_path).runs == 2
    assert [path.name for path in tmp_path.iterdir()] == [str(os.getpid())]


def test_a_missing_package_is_named_with_its_remedy() -> None:
    """Who lacks a peer is told what to install."""
    absent = Peer(
        name="absent", settings="", module="absent", needs=("no_such_package",), broker="none", worker=(), tasks=1
    )

    assert missing(absent) == "pip install no_such_package"
