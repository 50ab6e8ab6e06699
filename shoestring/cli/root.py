"""`shoestring` itself."""

from __future__ import annotations

import click

from shoestring import __version__
from shoestring.cli.group import Root


def _print_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        click.echo(f"shoestring {__version__}")
        context.exit()


@click.group(cls=Root, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Print the version."
)
def root() -> None:
    """A durable task queue in one process and one SQLite file.

    Exit codes: 0 ok, 1 failure, 2 usage, 3 daemon not reachable, 4 another daemon owns the database, 5 not found,
    74 disk error, 75 planned restart, 78 bad configuration.
    """
