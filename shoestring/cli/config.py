"""`shoestring config show`: what is set, and who set it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from shoestring.cli.group import Command, Group
from shoestring.cli.session import Session, with_session
from shoestring.config import NOT_KEYS, Config, KeyPath


@click.group(cls=Group, default="show", example="shoestring config show --origin")
def config() -> None:
    """Show the configuration and where it comes from."""


@config.command("show", cls=Command, example="shoestring config show --origin")
@click.option("--origin", is_flag=True, help="Say of each value whether default, file, environment or option set it.")
@with_session
def show(session: Session, *, origin: bool) -> None:
    """Show every key with the value that would be used, as a file that could be used.

    Options win over the environment (SHOESTRING_SECTION__KEY), the environment over the file, the file over defaults.
    """
    known = session.config
    values = dict(_values(known, ()))
    if session.json:
        session.print_json(_with_origins(known, values) if origin else _nested(values))
        return
    session.say(f"# read from {known.file}" if known.file is not None else "# no file was found or named")
    lines = [_assignment(key, value) for key, value in values.items()]
    column = max(map(len, lines)) + 2
    for key, line in zip(values, lines, strict=True):
        click.echo(f"{line.ljust(column)}# {known.origin(*key)}" if origin else line)


def _values(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, object]]:
    """Yield every key of the configuration with its value, tables walked into."""
    if isinstance(value, msgspec.Struct):
        hidden = NOT_KEYS if isinstance(value, Config) else frozenset()
        for name in value.__struct_fields__:
            if name not in hidden:
                yield from _values(getattr(value, name), (*path, name))
    elif isinstance(value, dict):
        for name, child in value.items():
            yield from _values(child, (*path, name))
    else:
        yield path, value


def _with_origins(known: Config, values: dict[KeyPath, object]) -> dict[str, dict[str, object]]:
    return {_dotted(key): {"value": value, "origin": known.origin(*key)} for key, value in values.items()}


def _nested(values: dict[KeyPath, object]) -> dict[str, object]:
    tree: dict[str, object] = {}
    for key, value in values.items():
        here = tree
        for part in key[:-1]:
            child = here.setdefault(part, {})
            assert isinstance(child, dict)
            here = child
        here[key[-1]] = value
    return tree


def _assignment(key: KeyPath, value: object) -> str:
    """Write one line of TOML; what is not set stands as a comment, because TOML has no null."""
    if value is None:
        return f"# {_dotted(key)} is not set"
    return f"{_dotted(key)} = {_written(value)}"


def _written(value: object) -> str:
    if isinstance(value, float | int) and not isinstance(value, bool):
        return repr(value)
    # TOML's strings and booleans are written as JSON's.
    return msgspec.json.encode(str(value) if isinstance(value, Path) else value).decode()


def _dotted(key: KeyPath) -> str:
    bare = [part.isascii() and part.replace("_", "").replace("-", "").isalnum() for part in key]
    return ".".join(part if is_bare else _written(part) for part, is_bare in zip(key, bare, strict=True))
