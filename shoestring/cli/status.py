"""`shoestring status`: the daemon on one page of 80 columns and 24 lines."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from shoestring.api.parameters import Nothing
from shoestring.cli.figures import count, counted, plain, size, span
from shoestring.cli.group import Command
from shoestring.cli.session import Session, with_session
from shoestring.cli.table import Cell, Column, facts, rows, terminal_width
from shoestring.core.model import QueueView, Status

#: More than these would push the head off a small screen; `--json` has all.
_ROWS_MAX: Final = 20
_PARKED_MAX: Final = 5


@click.command(cls=Command, example="shoestring status\nshoestring status --json | jq .pending")
@with_session
def status(session: Session) -> None:
    """Show the daemon on one page: work, memory, disk, queues, what waits and why.

    Figures of work are items: a chunk of 50 counts 50. Exits 3 if no daemon answers.
    """
    known = session.ask("status", Nothing(), Status)
    if session.json:
        session.print_json(known)
        return
    for line in _page(known):
        click.echo(line)


def _page(known: Status) -> Iterator[str]:
    yield from _head(known)
    yield ""
    if known.queues:
        yield from _queues(known.queues)
    else:
        yield "No queue has seen a task yet. Enqueue one: shoestring enqueue HANDLER '{\"argument\": 1}'"
    if parked := list(_parked(known)):
        yield ""
        yield from parked
    if notes := list(_notes(known)):
        yield ""
        yield from notes


def _head(known: Status) -> Iterator[str]:
    up = span(known.now_ms - known.started_at_ms)
    title = click.style(f"shoestring {known.version}", bold=True)
    yield f"{title}   up {up}   pid {known.pid}   generation {known.generation}"
    yield ""
    work = [f"{count(known.running)} of {counted(known.slots, 'slot')} running", f"{count(known.pending)} pending"]
    if known.delayed:
        work.append(f"{count(known.delayed)} delayed")
    if known.jobs_open:
        work.append(counted(known.jobs_open, "open job"))
    disk = f"{size(known.database_bytes)} + {size(known.wal_bytes)} WAL"
    wrote = f"{counted(known.commits, 'commit')}, {counted(known.fsyncs, 'flush', 'flushes')}"
    yield from facts(
        [
            ("work", " · ".join(work)),
            ("memory", size(known.rss_bytes)),
            ("disk", f"{disk} · {wrote}"),
            ("file", known.database),
            ("books", _books(known)),
        ]
    )


def _books(known: Status) -> str:
    """Write the ledger as the sum it is, leaving out what is zero."""
    ledger = known.ledger
    parts = [
        (ledger.completed, "completed"),
        (ledger.discarded, "discarded"),
        (ledger.cancelled, "cancelled"),
        (ledger.expired, "expired"),
        (ledger.dropped, "dropped"),
        (ledger.pending, "pending"),
    ]
    terms = [f"{count(number)} {name}" for number, name in parts if number] or ["0 pending"]
    if len(terms) <= 3:
        return f"{count(ledger.accepted)} accepted = {' + '.join(terms)}"
    return f"{count(ledger.accepted)} accepted = {' + '.join(terms[:2])}\n+ {' + '.join(terms[2:])}"


def _queues(queues: list[QueueView]) -> Iterator[str]:
    columns = [
        Column("QUEUE", flexible=True),
        *(Column(title, right=True) for title in ("READY", "DELAYED", "RUNNING", "PARKED", "COMPLETED", "DISCARDED")),
    ]
    lines = [
        (
            one.queue,
            _quiet(one.ready),
            _quiet(one.delayed),
            _quiet(one.running, "green"),
            _quiet(one.parked, "yellow"),
            _quiet(one.ledger.completed),
            _quiet(one.ledger.discarded, "red"),
        )
        for one in queues[:_ROWS_MAX]
    ]
    yield from rows(columns, lines, terminal_width())
    if len(queues) > _ROWS_MAX:
        yield f"and {counted(len(queues) - _ROWS_MAX, 'more queue')}: --json shows all"


def _quiet(number: int, colour: str | None = None) -> Cell:
    """Return a count that draws the eye only when there is something."""
    return Cell(count(number), colour) if number else Cell("0", dim=True)


def _parked(known: Status) -> Iterator[str]:
    columns = [
        Column("PARKED", flexible=True),
        Column("FOR", right=True),
        Column("PENDING", right=True),
        Column("REASON", flexible=True),
    ]
    lines = [
        (
            Cell(f"{one.queue}/{one.user}" if one.user else one.queue, "yellow"),
            "-" if one.parked_until_ms is None else span(max(0, one.parked_until_ms - known.now_ms)),
            count(one.pending),
            one.parked_reason or "",
        )
        for one in known.parked[:_PARKED_MAX]
    ]
    if lines:
        yield from rows(columns, lines, terminal_width())
    if len(known.parked) > _PARKED_MAX:
        yield f"and {counted(len(known.parked) - _PARKED_MAX, 'more parked lane')}: --json shows all"


def _notes(known: Status) -> Iterator[str]:
    """Say what a person may have to do something about, each with what that is."""
    if not known.accepting:
        yield _alarm("Not accepting new tasks: the disk is almost full. What is stored is safe and goes on running.")
        yield "  Free space on the disk; accepting resumes by itself."
    for handler, items in sorted(known.waiting_handlers.items()):
        wait = "waits" if items == 1 else "wait"
        yield _warning(f"{counted(items, 'item')} {wait} for handler {plain(handler)}, which the app does not declare.")
    if known.waiting_handlers:
        yield "  They run once it is declared again and the daemon restarted."
    if known.abandoned:
        calls = counted(known.abandoned, "call")
        yield _warning(
            f"{calls} outlived the hard time limit and {'goes' if known.abandoned == 1 else 'go'} on unseen."
        )
        yield "  A restart of the daemon ends them; give their I/O a timeout of its own."
    if known.suspects:
        yield _warning(f"{counted(known.suspects, 'task')} ran when the daemon last died.")
        yield "  One that does so twice runs alone; at the third time it is discarded."
    if known.discarded_kept:
        yield f"{counted(known.discarded_kept, 'discarded task')} kept: shoestring discarded, shoestring retry"


def _warning(text: str) -> str:
    return click.style(text, fg="yellow")


def _alarm(text: str) -> str:
    return click.style(text, fg="red", bold=True)
