"""Every planted bug is found within the first seeds, which the shipped code passes (`test_simulation`)."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from typing import Final

import pytest

from tests.sim import seeds
from tests.sim.mutants import MUTANTS

pytestmark = pytest.mark.slow

#: So many seeds a mutant has at most; the longest-lived needs a sixth of them.
_ENOUGH: Final = 120
#: Tried at a time. What is found is found soon, so more would be run for nothing.
_AT_A_TIME: Final = 4


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_planted_bug_is_found(workers: ProcessPoolExecutor, mutant: str) -> None:
    """An invariant that nothing ever broke may be one that nothing ever checked."""
    tried = seeds.BASE[:_ENOUGH]
    for start in range(0, len(tried), _AT_A_TIME):
        if seeds.failures(workers, tried[start : start + _AT_A_TIME], mutant=mutant):
            return
    pytest.fail(f"{mutant} lives through seeds {tried.start} to {tried.stop - 1}")
