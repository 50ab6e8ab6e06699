"""`shoestring bench`: the options, handed to `shoestring.bench`."""

from __future__ import annotations

from pathlib import Path

import click

from shoestring.cli.group import Command


@click.command(cls=Command, example="shoestring bench --only drain --quick")
@click.option("--only", multiple=True, metavar="NAME", help="Only this scenario, or those that begin so; repeatable.")
@click.option("--quick", is_flag=True, help="A tenth of the tasks, one round: a look, not a measurement.")
@click.option(
    "--scale",
    type=click.FloatRange(min=0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="X",
    help="Multiply the number of tasks of every scenario.",
)
@click.option("--repeat", type=click.IntRange(min=1), default=3, show_default=True, metavar="N", help="Rounds.")
@click.option(
    "--folder",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="Where the databases go, on the disk to measure; default: a temporary folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON on stdout; messages go to stderr.")
@click.pass_context
def bench(
    context: click.Context,
    *,
    only: tuple[str, ...],
    quick: bool,
    scale: float,
    repeat: int,
    folder: Path | None,
    as_json: bool,
) -> None:
    """Measure this machine: tasks a second, latency, memory, disk writes, beside the limits of the bare parts.

    Takes some minutes, and wants an otherwise idle machine.
    """
    from shoestring.bench import BenchOptions, main
    from shoestring.cli.session import JSON_WANTED

    context.meta[JSON_WANTED] = as_json
    options = BenchOptions(only=only, scale=scale, quick=quick, json=as_json, folder=folder, repeat=repeat)
    context.exit(main(options))
