"""`shoestring run`: the daemon, in the foreground, as service managers want it."""

from __future__ import annotations

import click

from shoestring.cli.group import Command
from shoestring.cli.session import Session, with_session


@click.command(cls=Command, example="shoestring run --app myproject.jobs:app\nshoestring run --burst")
@click.option("--app", metavar="MODULE:NAME", help="The app to run, instead of the configuration's.")
@click.option("--burst", is_flag=True, help="End, with code 0, when nothing is left to do; waits for delayed tasks.")
@click.option("-v", "--verbose", count=True, help="Log a line per life-cycle step of a task; twice: debug.")
@with_session
def run(session: Session, *, app: str | None, burst: bool, verbose: int) -> None:
    """Run the daemon until SIGTERM or Ctrl-C; it logs on stderr.

    What runs then is given run.grace_s to end, what does not end is run again at the next start; the second signal
    cuts that short. Exits 4 if another daemon owns the database, 78 if the configuration cannot be used.
    """
    session.overrides = {
        "app": app,
        "log.tasks": True if verbose else None,
        "log.level": "debug" if verbose > 1 else None,
        "log.format": "json" if session.json else None,
    }
    config = session.config
    from shoestring import daemon

    click.get_current_context().exit(daemon.run(config, burst=burst))
