"""How the command line starts, helps, and refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

import shoestring
from shoestring.cli.group import COMMANDS, Command, Group
from shoestring.cli.root import root

from .conftest import Invoke

#: What makes a start slow, and what a command that only asks does not need: 70 ms asyncio, 50 ms uvloop, 40 ms rich.
HEAVY = {"aiosqlite", "asyncio", "concurrent.futures", "importlib.metadata", "rich", "sqlite3", "structlog", "uvloop"}


def commands() -> list[tuple[str, click.Command]]:
    """Return every command and subcommand with the words that call it."""
    found: list[tuple[str, click.Command]] = []
    context = click.Context(root)
    for name in COMMANDS:
        command = root.get_command(context, name)
        assert command is not None
        found.append((name, command))
        if isinstance(command, click.Group):
            found += [(f"{name} {sub}", command.commands[sub]) for sub in command.commands]
    return found


COMMAND_LINES = dict(commands())


def loaded_by(folder: Path, *arguments: str) -> set[str]:
    """Return the modules that are loaded once a command line has run in a process of its own."""
    script = (
        "import json, sys\n"
        "from shoestring.cli import main\n"
        "try:\n"
        f"    main({list(arguments)!r})\n"
        "finally:\n"
        "    print(json.dumps(sorted(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    modules: list[str] = json.loads(done.stderr.splitlines()[-1])
    return set(modules)


@pytest.mark.parametrize("arguments", [("--help",), ("status",), ("tasks", "--json"), ("retry", "1")], ids=" ".join)
def test_a_question_loads_neither_a_loop_nor_a_drawing_library(folder: Path, arguments: tuple[str, ...]) -> None:
    """A status in a shell loop or a health check costs its start each time; 150 ms on the smallest machine."""
    assert loaded_by(folder, *arguments) & HEAVY == set()


def test_help_loads_no_command(folder: Path) -> None:
    """The list of commands is printed from a table."""
    loaded = {name for name in loaded_by(folder, "--help") if name.startswith("shoestring.cli.")}

    assert loaded == {"shoestring.cli.group", "shoestring.cli.root", "shoestring.cli.session"}


def test_the_help_fits_one_screen(invoke: Invoke) -> None:
    """A list one has to scroll is not read."""
    result = invoke("--help")

    assert result.exit_code == 0
    assert all(name in result.stdout for name in COMMANDS)
    assert len(result.stdout.splitlines()) <= 40


@pytest.mark.parametrize("words", COMMAND_LINES)
def test_every_command_helps_with_an_example_that_parses(invoke: Invoke, words: str) -> None:
    """People copy the example; it has to be one that works, on a terminal of 80 columns."""
    command = COMMAND_LINES[words]
    assert isinstance(command, Command | Group)

    help_text = invoke(*words.split(), "--help").stdout

    assert "Example:\n  " in help_text
    assert max(map(len, help_text.splitlines())) <= 80
    for line in command.example.splitlines():
        assert line.split("shoestring ")[1].startswith(words.split(" ", maxsplit=1)[0])
        assert words.rsplit(" ", maxsplit=1)[-1] in line


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_says_first_what_the_list_of_commands_says(name: str) -> None:
    """The table is read without the command's module; the two must not drift apart."""
    command = COMMAND_LINES[name]
    first = (command.help or "").split("\n\n")[0].replace("\n", " ")

    assert first.startswith(COMMANDS[name][1].removesuffix("."))


@pytest.mark.parametrize("words", [words for words, one in COMMAND_LINES.items() if isinstance(one, Command)])
def test_every_command_takes_json(words: str) -> None:
    """What a person can see a program must be able to read."""
    assert "--json" in {name for param in COMMAND_LINES[words].params for name in param.opts}


@pytest.mark.parametrize(
    ("typed", "hint"),
    [
        (("stats",), "Did you mean status?"),
        (("tasks", "lits"), "Did you mean list?"),
        (("xyzzy",), "Commands: run, check, config,"),
    ],
)
def test_a_mistyped_command_names_the_nearest(invoke: Invoke, typed: tuple[str, ...], hint: str) -> None:
    """The usual mistake is one letter."""
    result = invoke(*typed)

    assert (result.exit_code, result.stdout) == (2, "")
    assert hint in result.stderr


def test_the_version_is_told(invoke: Invoke) -> None:
    """The first question of every report."""
    result = invoke("--version")

    assert (result.exit_code, result.stdout) == (0, f"shoestring {shoestring.__version__}\n")
