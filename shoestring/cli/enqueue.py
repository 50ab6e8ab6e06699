"""`shoestring enqueue`: one task from the command line, or a line of stdin each.

Arguments by name (a JSON object) go to the daemon as they are, which checks them against the handler. Arguments by
position (an array) need the handler's signature to become names, so for them the app is imported here.

Stdin is streamed: what was read is sent in frames of some thousand lines, each one commit. A line that does not
fit its handler is reported with its number and left out, the others are stored; when the daemon refuses to take more,
the command stops and says from which line on.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from shoestring.cli.duration import duration_ms
from shoestring.cli.group import Command
from shoestring.cli.session import Session, with_session
from shoestring.core.model import PRIORITY_MAX, PRIORITY_MIN, Durability, Entry, Options

if TYPE_CHECKING:
    from shoestring.cli.arguments import Reader
    from shoestring.client import Stored
    from shoestring.core.errors import ShoestringError

#: Lines read before they are sent; `client` cuts them into frames.
_BATCH: Final = 5_000
#: Refused lines named one by one; more would scroll the first away.
_SHOWN_MAX: Final = 10


@click.command(
    cls=Command,
    example="""shoestring enqueue jobs.send_mail '{"to": "a@b.example", "copies": 2}'
jq -c '.[]' people.json | shoestring enqueue jobs.send_mail - --user alice""",
)
@click.argument("handler", metavar="HANDLER")
@click.argument("arguments", metavar="[ARGUMENTS]", default="{}")
@click.option("--user", default="", metavar="USER", help="Whom the work is accounted to.")
@click.option("--queue", metavar="QUEUE", help="Another queue than the handler's own.")
@click.option(
    "--priority",
    type=click.IntRange(PRIORITY_MIN, PRIORITY_MAX),
    default=0,
    metavar="N",
    help="Higher runs first.",
)
@click.option("--delay", "delay_ms", type=duration_ms, metavar="TIME", help="Run it no sooner than in 30s, 5m, 2h, 1d.")
@click.option(
    "--expires", "expires_ms", type=duration_ms, metavar="TIME", help="Drop it if it did not begin within that."
)
@click.option("--unique", metavar="KEY", help="Store it only if no stored task holds this key.")
@click.option(
    "--durability",
    type=click.Choice([one.value for one in Durability]),
    metavar="LEVEL",
    help="When to answer: volatile, relaxed or durable; default: as the handler says.",
)
@click.option("--app", metavar="MODULE:NAME", help="The app, to read arguments by position.")
@click.option("--undeclared", is_flag=True, help="Store it even if no such handler is declared: it waits for one.")
@with_session
def enqueue(
    session: Session,
    *,
    handler: str,
    arguments: str,
    user: str,
    queue: str | None,
    priority: int,
    delay_ms: int | None,
    expires_ms: int | None,
    unique: str | None,
    durability: str | None,
    app: str | None,
    undeclared: bool,
) -> None:
    """Store a task, or one per line of stdin.

    ARGUMENTS is a JSON object (by name) or array (by position), {} if left out. With `-` every line of stdin is
    one. Exits 2 if arguments do not fit the handler, 5 if there is no such handler.
    """
    from shoestring.cli.arguments import Reader

    options = Options(
        user=user,
        queue=queue,
        priority=priority,
        delay_ms=delay_ms,
        expires_in_ms=expires_ms,
        unique=unique,
        durability=Durability(durability) if durability is not None else None,
    )
    session.overrides = {"app": app}
    reader = Reader(session, handler, options)
    if arguments == "-":
        _check_handler(session, handler, undeclared=undeclared)
        _store_lines(session, reader, sys.stdin.buffer)
        return
    # What is typed wrong is said before the daemon is asked.
    entry = reader.typed(arguments)
    _check_handler(session, handler, undeclared=undeclared)
    _store_one(session, entry)


def _check_handler(session: Session, handler: str, *, undeclared: bool) -> None:
    """Raise NotFound with the nearest name, unless the daemon knows `handler`.

    The daemon itself keeps tasks of undeclared handlers, so that producers may be deployed first. A person at a
    terminal rather made a mistake.
    """
    from shoestring.api.parameters import Nothing
    from shoestring.cli.listing import unknown
    from shoestring.core.errors import NotFound
    from shoestring.core.model import Status

    if undeclared:
        return
    known = {one.handler for one in session.ask("status", Nothing(), Status).handlers if one.declared}
    if handler not in known:
        raise NotFound(
            unknown("handler", handler, known)
            + " Nothing was stored. To store it for a handler that comes later, add --undeclared."
        )


def _store_one(session: Session, entry: Entry) -> None:
    from shoestring.cli.figures import span
    from shoestring.core.errors import ShoestringError
    from shoestring.core.model import Duplicate

    (stored,) = _submit(session, [entry])
    if isinstance(stored, ShoestringError):
        raise stored
    if session.json:
        session.print_json({"duplicate_of": stored.task_id} if isinstance(stored, Duplicate) else {"task_id": stored})
    elif isinstance(stored, Duplicate):
        click.echo(f"Nothing new is stored: task {stored.task_id} holds that unique key.")
    else:
        delay_ms = entry.options.delay_ms if entry.options is not None else None
        click.echo(f"Task {stored} is stored" + (f" and due in {span(delay_ms)}." if delay_ms else "."))


@dataclass(slots=True)
class _Tally:
    """What became of the lines so far."""

    stored: int = 0
    duplicates: int = 0
    refused: int = 0
    first_id: int | None = None
    last_id: int | None = None
    first_error: ShoestringError | None = None
    shown: list[str] = field(default_factory=list)

    def note_stored(self, task_id: int) -> None:
        self.stored += 1
        self.first_id = task_id if self.first_id is None else self.first_id
        self.last_id = task_id

    def note_refused(self, line: int, error: ShoestringError) -> None:
        self.refused += 1
        self.first_error = self.first_error or error
        if len(self.shown) < _SHOWN_MAX:
            self.shown.append(f"line {line}: {error}")


def _store_lines(session: Session, reader: Reader, lines: Iterable[bytes]) -> None:
    tally = _Tally()
    numbered = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    filled = ((number, line) for number, line in numbered if line)
    try:
        while batch := list(islice(filled, _BATCH)):
            _store_batch(session, batch, reader, tally)
    finally:
        # Also when the daemon went away or Ctrl-C was pressed: what was stored stays stored, and has to be known.
        _report(session, tally)
    if tally.first_error is not None:
        raise click.exceptions.Exit(tally.first_error.exit_code)


def _store_batch(session: Session, batch: list[tuple[int, bytes]], reader: Reader, tally: _Tally) -> None:
    """Store a batch of numbered lines, frame by frame; raise what stops the command."""
    from shoestring.client import slices
    from shoestring.core.errors import Refused, StorageError, Unavailable, UsageError

    entries: list[Entry] = []
    numbers: list[int] = []
    for number, line in batch:
        try:
            entries.append(reader.line(line))
            numbers.append(number)
        except UsageError as error:
            tally.note_refused(number, error)
    at = 0
    for part in slices(entries):
        lines, at = numbers[at : at + len(part)], at + len(part)
        try:
            results = _submit(session, part)
        except Unavailable:
            session.say(f"Stopped in lines {lines[0]} to {lines[-1]}: which of these are stored is not known.")
            raise
        except (Refused, StorageError):
            _say_stopped(session, lines[0])
            raise
        _note_results(session, lines, results, tally)


def _note_results(
    session: Session, lines: Sequence[int], results: Sequence[Stored | ShoestringError], tally: _Tally
) -> None:
    """Count what became of a frame's lines; raise the refusal that says to come back later."""
    from shoestring.core.errors import Refused, ShoestringError, StorageError
    from shoestring.core.model import Duplicate

    stop: tuple[int, ShoestringError] | None = None
    for line, result in zip(lines, results, strict=True):
        if isinstance(result, Refused | StorageError):
            stop = stop or (line, result)
        elif isinstance(result, ShoestringError):
            tally.note_refused(line, result)
        elif isinstance(result, Duplicate):
            tally.duplicates += 1
        else:
            tally.note_stored(result)
    if stop is not None:
        _say_stopped(session, stop[0])
        raise stop[1]


def _say_stopped(session: Session, line: int) -> None:
    session.say(f"Stopped at line {line}: what came before it is stored. Go on with: tail -n +{line}")


def _submit(session: Session, entries: Sequence[Entry]) -> Sequence[Stored | ShoestringError]:
    from shoestring.client import BlockingClient

    if session.client is None:
        session.client = BlockingClient(session.connection().path)
    return session.client.submit_many(entries)


def _report(session: Session, tally: _Tally) -> None:
    from shoestring.cli.figures import counted, plain

    for line in tally.shown:
        session.say(plain(line))
    if tally.refused > len(tally.shown):
        session.say(f"and {counted(tally.refused - len(tally.shown), 'more line')} not stored")
    if session.json:
        session.print_json(
            {
                "stored": tally.stored,
                "duplicates": tally.duplicates,
                "refused": tally.refused,
                "first": tally.first_id,
                "last": tally.last_id,
            }
        )
        return
    ids = f" (IDs {tally.first_id} to {tally.last_id})" if tally.stored else ""
    more = [counted(tally.duplicates, "duplicate")] if tally.duplicates else []
    more += [f"{counted(tally.refused, 'line')} refused"] if tally.refused else []
    is_are = "is" if tally.stored == 1 else "are"
    click.echo("; ".join([f"{counted(tally.stored, 'task')} {is_are} stored{ids}", *more]) + ".")
