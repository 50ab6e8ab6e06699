"""`shoestring demo`: the options, handed to `shoestring.demo`."""

from __future__ import annotations

import click

from shoestring.cli.group import Command


@click.command(cls=Command, example="shoestring demo --kill 5")
@click.option("--items", default=100_000, show_default=True, metavar="N", help="Accounts to block, all users together.")
@click.option("--users", default=10, show_default=True, metavar="N", help="Demo users; each has a job of its own.")
@click.option("--kill", default=0, show_default=True, metavar="N", help="Kill the daemon with -9 so many times.")
@click.option("--seed", default=1, show_default=True, metavar="N", help="Seed of the API's luck and of the kills.")
@click.option(
    "--time-scale",
    default=90.0,
    show_default=True,
    metavar="X",
    help="Make the API's 15-minute windows so much shorter.",
)
@click.option("--keep", is_flag=True, help="Keep the folder with configuration, database and logs.")
@click.option("--quiet", is_flag=True, help="Draw no progress, only the closing table.")
@click.option("--color/--no-color", default=None, help="Colour; by default where the terminal can.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout; messages go to stderr.")
@click.pass_context
def demo(
    context: click.Context,
    *,
    items: int,
    users: int,
    kill: int,
    seed: int,
    time_scale: float,
    keep: bool,
    quiet: bool,
    color: bool | None,
    as_json: bool,
) -> None:
    """Watch the whole story run on this machine, in about a minute.

    A stub of a social API, with rate limits, errors and latencies, runs as one process, the daemon as another; a job
    per demo user blocks all followers of an account. At the end the API's own count of blocked accounts stands
    beside shoestring's. Exits 0 if they agree, also after kills.
    """
    from shoestring.cli.session import JSON_WANTED
    from shoestring.demo import Options, main

    context.meta[JSON_WANTED] = as_json
    options = Options(
        items=items, users=users, kill=kill, seed=seed, time_scale=time_scale, json=as_json, keep=keep, quiet=quiet,
        color=color,
    )  # fmt: skip
    context.exit(main(options))
