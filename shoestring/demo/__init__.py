"""`shoestring demo`: the story this package was written for, for real, in about a minute.

    from shoestring.demo import Options, main

    exit_code = main(Options(items=100_000, users=10, kill=5))

A stub of a social API runs as one process (`stub`), the shoestring daemon as another, and in this one the conductor
opens a job per user that blocks all followers of an account, watches, kills the daemon if it is asked to, and ends with
the API's own count beside shoestring's. `jobs` is the application: what a project using shoestring looks like.

    social     the API: who follows whom, what a block comes to, windows, counts; pure
    books      does the API's count equal shoestring's; pure
    stub       the API over HTTP, as a process
    http       the client the handlers use
    jobs       the application: handlers and source
    stage      the folder and the two processes; leaves nothing running
    leash      makes a child die with its parent
    gauges     disk writes, memory and CPU, from the kernel's counters
    screen     draws the progress and the closing table
    blocking   the scene: opens the jobs, kills, waits, balances; another scene is another module like it
    report     what came out of a scene
    conductor  signals, exit code, printing

`main` answers 0 if the books balance and the daemon ended in order, 1 if not (or if a process failed, with the reason
on stderr), 130 after Ctrl-C or SIGTERM. Options that make no sense raise UsageError before anything is started. With
`json` the figures are the only thing on stdout; people are told on stderr unless `quiet`.
"""

from __future__ import annotations

from dataclasses import dataclass

from shoestring.core.errors import UsageError

#: The stub keeps two bytes per item; the conductor asks after every user four times a second.
ITEMS_MAX = 100_000_000
USERS_MAX = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What `shoestring demo` can be asked for. The fields in the last group have no option on the command line."""

    items: int = 100_000  # --items: accounts to block, all users together
    users: int = 10  # --users: demo users, a job each
    kill: int = 0  # --kill: how often the daemon is killed with -9
    seed: int = 1  # --seed: of the API's luck and of the moments of the kills
    time_scale: float = 90.0  # --time-scale: the API's 15-minute windows are this much shorter
    json: bool = False  # --json: figures for machines on stdout
    keep: bool = False  # --keep: leave the folder with config, database and logs, and say where it is
    quiet: bool = False  # --quiet: no progress, only the closing table
    color: bool | None = None  # --color/--no-color; None: where the terminal can

    latency_ms: tuple[float, float] = (5.0, 50.0)  # of the API

    def check(self) -> None:
        """Raise UsageError for what makes no sense."""
        if not 1 <= self.users <= USERS_MAX:
            raise UsageError(f"--users {self.users}: there must be 1 to {USERS_MAX:,} demo users.")
        if not self.users <= self.items <= ITEMS_MAX:
            raise UsageError(
                f"--items {self.items}: give at least one item per user ({self.users}) and at most {ITEMS_MAX:,}."
            )
        if self.kill < 0:
            raise UsageError(f"--kill {self.kill}: the daemon can be killed 0 times or more.")
        if not 1.0 <= self.time_scale <= 9_000.0:
            raise UsageError(
                f"--time-scale {self.time_scale:g}: must be from 1 (15-minute windows) to 9000 (0.1 seconds)."
            )


def main(options: Options) -> int:
    """Run the demo and return the exit code of the command."""
    options.check()
    from shoestring.demo.conductor import conduct

    return conduct(options)
