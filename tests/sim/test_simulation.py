"""The shipped code keeps its promises in every seed: see `invariants.CATALOGUE` for what they are."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.sim import seeds
from tests.sim.simulation import run

pytestmark = pytest.mark.slow

#: Seeds of a test: few enough that `--durations` says which are slow, many enough to keep every core busy.
_SLICE: Final = 20
_CAMPAIGN: Final = range(1_000, 11_000)
#: Their digests are compared.
_TRACED: Final = (1, 2, 3)
_ROOT: Final = Path(__file__).parents[2]


def _slices(all_seeds: range, size: int) -> list[range]:
    return [all_seeds[start : start + size] for start in range(0, len(all_seeds), size)]


def _name(part: range) -> str:
    return f"{part.start}-{part.stop - 1}"


@pytest.mark.parametrize("part", _slices(seeds.BASE, _SLICE), ids=_name)
def test_every_promise_is_kept(workers: ProcessPoolExecutor, part: range) -> None:
    """Crashes, full disks, slow threads and clock steps in every order: what no hand-written test thinks of."""
    failed = seeds.failures(workers, part)
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


@pytest.mark.campaign
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", _slices(_CAMPAIGN, 500), ids=_name)
def test_every_promise_is_kept_in_thousands_of_runs(workers: ProcessPoolExecutor, part: range) -> None:
    """What happens once in a thousand runs happens to somebody every day."""
    failed = seeds.failures(workers, part)
    if failed:
        pytest.fail("\n".join(failed), pytrace=False)


def test_a_seed_is_the_same_run_again() -> None:
    """A failure that does not come back when it is replayed cannot be looked into."""
    assert [run(seed).digest for seed in _TRACED] == [run(seed).digest for seed in _TRACED]


def test_a_seed_is_the_same_run_in_another_process() -> None:
    """The developer's process is not the one that failed: its sets are in another order."""
    here = [run(seed).digest for seed in _TRACED]
    assert [here, here] == [_digests_with_hash_seed(each) for each in ("1", "2")]


def _digests_with_hash_seed(hash_seed: str) -> list[str]:
    program = f"from tests.sim.simulation import run\nfor seed in {_TRACED}: print(run(seed).digest)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=_ROOT, env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout.split()
