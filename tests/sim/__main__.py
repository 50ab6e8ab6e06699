"""Replay seeds of the simulator: `python -m tests.sim --seed 123 --verbose`."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import nullcontext

from tests.sim.mutants import MUTANTS
from tests.sim.simulation import run
from tests.sim.violation import Violation


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    parser.add_argument("--count", type=int, default=1, help="how many seeds")
    parser.add_argument("--verbose", action="store_true", help="print what happens, with virtual time")
    parser.add_argument("--mutant", choices=MUTANTS, help="plant a bug")
    given = parser.parse_args()
    mutation = MUTANTS[given.mutant] if given.mutant else nullcontext
    failed = 0
    began = time.perf_counter()
    for seed in range(given.seed, given.seed + given.count):
        try:
            report = run(seed, verbose=given.verbose, mutation=mutation)
        except Violation as violation:
            failed += 1
            print(f"seed {seed}: {violation}")
        else:
            if given.count == 1:
                print(f"seed {seed}: {report}")
    took = time.perf_counter() - began
    print(f"{given.count} seeds, {failed} failed, {given.count / took:.1f} a second")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
