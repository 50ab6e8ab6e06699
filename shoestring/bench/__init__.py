"""`shoestring bench`: what this box makes of shoestring, beside what it makes of the bare parts.

Theory of operation. A *scenario* is one measurement (`scenarios`), run in a child process of its own (`child`) so
that its memory is its own. A *round* runs every chosen scenario once, the limits among them; rounds are repeated
and so interleave (`rounds`), which spreads whatever else the machine is doing over all of them. A figure is the
median of its rounds with the least and the greatest; a ratio to a limit is taken within a round, then its median.
Disk figures come from the block device's own counters (`device`), on a file system of our own where we may mount
one, else on the one under the folder. `budget` holds what was promised; `table` draws.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions:
    """What the command line asks for."""

    only: tuple[str, ...] = ()  # names or leading parts of names ("socket"); none: all
    scale: float = 1.0  # multiplies the number of tasks of every scenario
    quick: bool = False  # a tenth of the tasks, one round, short windows
    json: bool = False  # figures for machines on stdout instead of tables
    folder: Path | None = None  # where the databases go; None: a temporary folder
    repeat: int = 3  # rounds


def main(options: BenchOptions) -> int:
    """Run the bench, print its figures on stdout and progress on stderr; 1 if a scenario could not be measured.

    Raises UsageError for a name that no scenario has.
    """
    from shoestring.bench.rounds import run  # the CLI shows its help without loading any of it

    return run(options)
