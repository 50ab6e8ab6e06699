"""Runs many seeds over the machine's cores and says of each what it broke, if anything, and how to see it again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from typing import Final

from tests.sim.mutants import MUTANTS
from tests.sim.simulation import run
from tests.sim.violation import Violation

#: What every change has to pass, and what the mutants are caught in.
BASE: Final = range(300)


def workers() -> ProcessPoolExecutor:
    """Return one process for each core. Fresh ones: a fork would inherit the threads of whoever asks."""
    return ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn"))


def failures(pool: ProcessPoolExecutor, seeds: Iterable[int], *, mutant: str | None = None) -> list[str]:
    """Run seeds and return for each that failed the command that replays it, with what was broken."""
    return [failure for failure in pool.map(_failure, seeds, repeat(mutant)) if failure is not None]


def _failure(seed: int, mutant: str | None) -> str | None:
    command = f"python -m tests.sim --seed {seed} --verbose"
    if mutant is None:
        try:
            run(seed)
        except Exception as error:  # noqa: BLE001 - whoever breaks the simulator itself has to name the seed as well
            return f"{command}  # {type(error).__name__}: {error}"
        return None
    try:
        run(seed, mutation=MUTANTS[mutant])
    except Violation as violation:
        return f"{command} --mutant {mutant}  # {violation}"
    except Exception:  # noqa: BLE001 - it fell over, but no invariant saw why
        return None
    return None
