"""What every command shares: its configuration, its connection, and how it prints.

Data goes to stdout, messages to stderr; with `--json` data is one JSON document. A command that fails raises, and
`group` turns the error into a message and an exit code.
"""

from __future__ import annotations

import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar

import click

if TYPE_CHECKING:
    from shoestring.cli.connection import Connection
    from shoestring.client import BlockingClient
    from shoestring.config import Config

P = ParamSpec("P")
T = TypeVar("T")

#: Where the running command leaves its `--json`, for whoever prints its error.
JSON_WANTED: Final = "shoestring.json"


def wall_clock_ms() -> int:
    """Return the present, for ages. The command line is where the clock enters; below it is passed on."""
    return time.time_ns() // 1_000_000  # noqa: TID251


@dataclass(slots=True)
class Session:
    """One run of one command."""

    config_file: Path | None = None
    json: bool = False
    #: The present in milliseconds; a test passes its own as click's `obj`.
    clock: Callable[[], int] = wall_clock_ms
    #: By dotted key; set before the configuration is read first.
    overrides: Mapping[str, object] = field(default_factory=dict)
    #: The programs' client, for a command that streams; closed with the session.
    client: BlockingClient | None = None
    _config: Config | None = None
    _connection: Connection | None = None

    @property
    def config(self) -> Config:
        """The configuration, read once; raises ConfigError."""
        if self._config is None:
            from shoestring.config import Config

            self._config = Config.load(self.config_file, self.overrides)
        return self._config

    def connection(self) -> Connection:
        """Return the open connection to the daemon; raises Unavailable."""
        if self._connection is None:
            from shoestring.cli.connection import Connection

            config = self.config
            start_with = shlex.join(["shoestring", "run", *self.config_option()])
            self._connection = Connection.open(config.admin_socket, config.socket, start_with=start_with)
        return self._connection

    def ask(self, method: str, params: object, answer: type[T], *, answer_s: float | None = None) -> T:
        """Call one verb and return its checked answer."""
        import msgspec

        from shoestring.cli.connection import ANSWER_S
        from shoestring.core.errors import RemoteProtocolError

        result = self.connection().call(method, params, answer_s=ANSWER_S if answer_s is None else answer_s)
        try:
            return msgspec.json.decode(result, type=answer)
        except msgspec.ValidationError as error:
            raise RemoteProtocolError(
                f"The daemon's answer to `{method}` is not what this version expects ({error}). The daemon and this"
                " command are of different versions: restart the daemon after an upgrade."
            ) from error

    def config_option(self) -> list[str]:
        """Return the option that makes another command read the same configuration."""
        return ["--config", os.fspath(self.config_file)] if self.config_file is not None else []

    def close(self) -> None:
        """Close what is open; the next question opens another connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self.client is not None:
            self.client.close()
            self.client = None

    def print_json(self, value: object, *, line: bool = False) -> None:
        """Write `value` on stdout: indented, or on one line where one document follows another."""
        import msgspec

        data = msgspec.json.encode(value, enc_hook=str)
        click.echo(data if line else msgspec.json.format(data, indent=2))

    def say(self, message: str) -> None:
        """Write a message for people on stderr."""
        click.echo(message, err=True)


def with_session(run: Callable[Concatenate[Session, P], None]) -> Callable[..., None]:
    """Give a command `--config` and `--json`, and its Session as first argument."""

    @click.option(
        "-c",
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The configuration to read instead of ./shoestring.toml.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print data as JSON on stdout; messages go to stderr.")
    @click.pass_context
    @wraps(run)
    def wrapped(
        context: click.Context, /, config_file: Path | None, as_json: bool, *args: P.args, **kwargs: P.kwargs
    ) -> None:
        context.meta[JSON_WANTED] = as_json
        session = Session(config_file=config_file, json=as_json, clock=context.obj or wall_clock_ms)
        context.call_on_close(session.close)
        run(session, *args, **kwargs)

    return wrapped


def stdout_is_terminal() -> bool:
    return sys.stdout.isatty()
