"""`shoestring check`: would it run, does it run, and if not, which part is at fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import click

from shoestring.cli.figures import count, counted, size, span
from shoestring.cli.group import Command
from shoestring.cli.session import Session, with_session
from shoestring.cli.table import Column, rows, sentences, terminal_width
from shoestring.core.errors import ConfigError, ShoestringError, StorageError

if TYPE_CHECKING:
    from shoestring.core.model import Status
    from shoestring.engine.registry import HandlerSpec


#: Where the findings begin, behind the check's name and state.
_INDENT: Final = 19


@dataclass(frozen=True, slots=True)
class Found:
    """What a check found: a sentence, and lines to print below it that are fit for a terminal already."""

    summary: str
    lines: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Report:
    """What was found, check by check; the first failure's exit code is the command's."""

    json: bool
    exit_code: int = 0
    checks: list[dict[str, object]] = field(default_factory=list)
    handlers: list[dict[str, object]] = field(default_factory=list)

    def run(self, name: str, check: Callable[[], Found]) -> None:
        """Run one check and print its line; `check` returns what it found or raises what is wrong."""
        try:
            self._note(name, "ok", "green", check())
        except ShoestringError as error:
            self._note(name, "failed", "red", Found(str(error)))
            self.exit_code = self.exit_code or error.exit_code

    def skip(self, name: str, why: str) -> None:
        self._note(name, "skipped", "yellow", Found(why))

    def _note(self, name: str, state: str, colour: str, found: Found) -> None:
        self.checks.append({"check": name, "state": state, "detail": found.summary})
        if self.json:
            return
        head = f"{name:<8}  {click.style(state.ljust(7), fg=colour)}  "
        first, *more = [*sentences(found.summary, terminal_width(), _INDENT), *found.lines]
        click.echo(head + first)
        for line in more:
            click.echo(" " * _INDENT + line)


@click.command(cls=Command, example="shoestring check\nshoestring check --offline")
@click.option("--app", metavar="MODULE:NAME", help="The app to check, instead of the configuration's.")
@click.option("--offline", is_flag=True, help="Do not ask for a daemon: before a start, as ExecStartPre= does.")
@with_session
def check(session: Session, *, app: str | None, offline: bool) -> None:
    """Check configuration, app, database and daemon, and list the handlers.

    Exits 0 if all is well, else with the code of the first failure: 78 configuration or app, 74 database, 3 no daemon.
    """
    session.overrides = {"app": app}
    report = Report(session.json)
    report.run("config", lambda: _check_config(session))
    if report.exit_code == 0:
        declared: dict[str, HandlerSpec] = {}
        report.run("app", lambda: _check_app(session, declared, report))
        running = _status(session)
        report.run("database", lambda: _check_database(session, running))
        if offline:
            report.skip("daemon", "not asked for (--offline)")
        else:
            report.run("daemon", lambda: _check_daemon(session, running, declared))
    if session.json:
        found = {"ok": report.exit_code == 0, "checks": report.checks, "handlers": report.handlers}
        session.print_json(found)
    click.get_current_context().exit(report.exit_code)


def _check_config(session: Session) -> Found:
    config = session.config
    changed = f"{counted(len(config.origins), 'key')} set"
    return Found(f"{config.file}: {changed}" if config.file is not None else f"no file was found or named; {changed}")


def _check_app(session: Session, declared: dict[str, HandlerSpec], report: Report) -> Found:
    from shoestring.loading import load_app

    config = session.config
    registry = load_app(config).registry
    declared.update(registry.handlers)
    report.handlers = [_described(spec) for spec in registry.handlers.values()]
    found = f"{config.app}: {counted(len(registry.handlers), 'handler')}, {counted(len(registry.sources), 'source')}"
    if not registry.handlers:
        return Found(f"{found}. Declare one with @app.task, in a module the app imports.")
    columns = [
        Column("HANDLER", flexible=True),
        Column("QUEUE", flexible=True),
        Column("TRIES", right=True),
        Column("LIMIT", right=True),
        Column("DURABILITY"),
    ]
    lines = [
        (
            spec.name,
            spec.queue,
            count(spec.retry.max_attempts),
            span(round(spec.timeout.hard * 1_000)) if spec.timeout.hard is not None else "-",
            spec.durability.value,
        )
        for spec in registry.handlers.values()
    ]
    width = terminal_width()
    return Found(found, rows(columns, lines, width - _INDENT if width is not None else None))


def _described(spec: HandlerSpec) -> dict[str, object]:
    return {
        "handler": spec.name,
        "queue": spec.queue,
        "max_attempts": spec.retry.max_attempts,
        "soft_timeout_s": spec.timeout.soft,
        "hard_timeout_s": spec.timeout.hard,
        "durability": spec.durability.value,
        "delivery": spec.delivery.value,
        "concurrency": spec.concurrency,
        "batch": spec.batch,
        "is_async": spec.is_async,
    }


def _status(session: Session) -> Status | ShoestringError:
    """Return the daemon's status, or why there is none."""
    from shoestring.api.parameters import Nothing
    from shoestring.core.model import Status

    try:
        return session.ask("status", Nothing(), Status)
    except ShoestringError as error:
        return error


def _check_database(session: Session, running: Status | ShoestringError) -> Found:
    """Read the database, unless the daemon does so anyway."""
    path = session.config.database
    if not isinstance(running, ShoestringError):
        pending = counted(running.pending, "item")
        return Found(f"{running.database}: {size(running.database_bytes)}, {pending} pending")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigError(f"The folder of database = {path} does not exist. Create {folder}, or correct the path.")
    if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
        raise StorageError(
            f"The folder {folder} cannot be written by this user. Nothing was changed. Correct its owner."
        )
    if not path.exists():
        return Found(f"{path}: not there yet, the daemon will make it")
    from shoestring.store.verify import verify

    version = verify(path)
    return Found(f"{path}: {size(path.stat().st_size)}, schema version {version}, reads back whole")


def _check_daemon(session: Session, running: Status | ShoestringError, declared: dict[str, HandlerSpec]) -> Found:
    if isinstance(running, ShoestringError):
        raise running
    found = (
        f"answers on {session.connection().path}: version {running.version}, pid {running.pid},"
        f" generation {running.generation}, up {span(running.now_ms - running.started_at_ms)}"
    )
    # A daemon that was not restarted after a deployment runs the old code: tasks of new handlers wait.
    known = {one.handler for one in running.handlers if one.declared}
    if missing := sorted(set(declared) - known):
        found += f". It does not know {', '.join(missing)}: restart it to run the present code"
    return Found(found)
