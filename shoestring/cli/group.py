"""The commands, loaded when they are called, and how each of them fails.

`shoestring --help` prints from the table below without importing one of them; `shoestring status` imports
only its own module. A ShoestringError becomes its message on stderr and its exit code; it never shows a traceback,
because the message already says what happened, whether data is safe and what to do next. Any other exception is a
bug, and its traceback is what the report needs.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import click

from shoestring.cli.session import JSON_WANTED
from shoestring.core.errors import ShoestringError

#: name -> (where it is, what it does), in the order of a first day: start, feed, look, mend.
SECTIONS: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "Start": {
        "run": ("shoestring.cli.run:run", "Run the daemon."),
        "check": ("shoestring.cli.check:check", "Check configuration, app, database and daemon."),
        "config": ("shoestring.cli.config:config", "Show the configuration and where it comes from."),
    },
    "Work": {
        "enqueue": ("shoestring.cli.enqueue:enqueue", "Store a task, or one per line of stdin."),
        "cancel": ("shoestring.cli.cancel:cancel", "Cancel tasks or jobs."),
        "retry": ("shoestring.cli.retry:retry", "Run discarded tasks again."),
    },
    "Look": {
        "status": ("shoestring.cli.status:status", "Show the daemon on one page."),
        "tasks": ("shoestring.cli.tasks:tasks", "List stored tasks, or show one."),
        "jobs": ("shoestring.cli.jobs:jobs", "List, show, watch and cancel jobs."),
        "discarded": ("shoestring.cli.discarded:discarded", "List the tasks that were given up."),
    },
    "Try": {
        "demo": ("shoestring.cli.demo:demo", "Watch the whole story run on this machine."),
        "bench": ("shoestring.cli.bench:bench", "Measure this machine."),
    },
}
COMMANDS: Final = {name: command for section in SECTIONS.values() for name, command in section.items()}

#: What a shell reports for a process that Ctrl-C ended.
INTERRUPTED: Final = 130


class Command(click.Command):
    """A command whose help ends with an example."""

    def __init__(self, *args: Any, example: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_example(self.example, formatter)


class Group(click.Group):
    """A group with a command for the usual case: `tasks` is `tasks list`, `tasks 12` is `tasks show 12`."""

    def __init__(self, *args: Any, example: str, default: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.default = default

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if self.default is not None and (not args or self._is_option_of_default(ctx, args[0])):
            args = [self.default, *args]
        elif args and args[0].isdecimal() and "show" in self.commands:
            args = ["show", *args]
        return super().parse_args(ctx, args)

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(self.commands)  # in the order they are written, not of the alphabet

    def _is_option_of_default(self, ctx: click.Context, first: str) -> bool:
        return first.startswith("-") and first not in ctx.help_option_names

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return _resolved(self, ctx, args) or super().resolve_command(ctx, args)

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_example(self.example, formatter)


class Root(click.Group):
    """All commands, none of them loaded until it is called."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, _ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return _resolved(self, ctx, args) or super().resolve_command(ctx, args)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, commands in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(9), line) for name, (_, line) in commands.items()])

    def format_epilog(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        _write_example("shoestring run --app myproject.jobs:app", formatter)

    def invoke(self, ctx: click.Context) -> Any:
        if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
            ctx.color = False
        try:
            return super().invoke(ctx)
        except ShoestringError as error:
            _print_error(error, as_json=bool(ctx.meta.get(JSON_WANTED)))
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


def _resolved(
    group: click.Group, ctx: click.Context, args: list[str]
) -> tuple[str | None, click.Command | None, list[str]] | None:
    """Return None for a known command; for an unknown one raise, naming the nearest."""
    from shoestring.cli.nearest import did_you_mean

    if args[0].startswith("-") or group.get_command(ctx, args[0]) is not None:
        return None
    known = group.list_commands(ctx)
    hint = did_you_mean(args[0], known) or f"Commands: {', '.join(known)}."
    if getattr(group, "default", None) is not None and "show" in known:
        hint += " An ID is a whole number."
    raise click.UsageError(f"There is no command '{args[0]}'. {hint}", ctx)


def _write_example(example: str, formatter: click.HelpFormatter) -> None:
    with formatter.section("Example"):
        for line in example.split("\n"):
            formatter.write(" " * formatter.current_indent + line + "\n")


def _print_error(error: ShoestringError, *, as_json: bool) -> None:
    from shoestring.cli.table import sentences, terminal_width

    if as_json:
        import msgspec

        body = {"code": error.code, "message": str(error), "data": error.data()}
        click.echo(msgspec.json.encode({"error": body}), err=True)
        return
    head = "error: "
    first, *more = sentences(head + str(error), terminal_width(sys.stderr))
    click.echo(click.style(head, fg="red", bold=True) + first.removeprefix(head), err=True)
    for line in more:
        click.echo(line, err=True)
