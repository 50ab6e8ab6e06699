"""What the listings of tasks, jobs and discarded tasks have in common: tables, one task in full, empty lists."""

from __future__ import annotations

from collections.abc import Iterable

import click

from shoestring.api.parameters import ROWS_MAX, Nothing
from shoestring.cli.figures import count, counted, instant, plain, span, when
from shoestring.cli.nearest import did_you_mean
from shoestring.cli.session import Session
from shoestring.cli.table import Cell, Column, facts, rows, terminal_width
from shoestring.core.errors import NotFound
from shoestring.core.model import Status, TaskState, TaskView


class _Id(click.IntRange):
    name = "ID"  # else a wrong one is "not a valid integer range"


ID = _Id(min=1)

LIMIT = click.option(
    "-n",
    "--limit",
    type=click.IntRange(1, ROWS_MAX),
    default=20,
    show_default=True,
    help="At most so many rows.",
)
QUEUE = click.option("--queue", metavar="QUEUE", help="Only of this queue.")
USER = click.option("--user", metavar="USER", help="Only of this user.")
HANDLER = click.option("--handler", metavar="HANDLER", help="Only of this handler.")

_COLOURS = {
    TaskState.RUNNING: "green",
    TaskState.WAITING: "yellow",
    TaskState.DISCARDED: "red",
}


def task_table(tasks: Iterable[TaskView], now: int) -> None:
    """Print tasks, one line each."""
    columns = [
        Column("ID", right=True),
        Column("STATE"),
        Column("HANDLER", flexible=True),
        Column("QUEUE", flexible=True),
        Column("USER", flexible=True),
        Column("ITEMS", right=True),
        Column("TRIES", right=True),
        Column("AGE", right=True),
        Column("DUE"),
    ]
    lines = [
        (
            str(task.task_id),
            Cell(task.state.value, _COLOURS.get(task.state)),
            task.handler,
            task.queue,
            task.user or Cell("-", dim=True),
            count(task.items),
            str(task.attempt),
            span(max(0, now - task.enqueued_at_ms)),
            when(task.due_at_ms, now) if task.due_at_ms is not None and task.due_at_ms > now else "",
        )
        for task in tasks
    ]
    for line in rows(columns, lines, terminal_width()):
        click.echo(line)


def one_task(task: TaskView, now: int) -> None:
    """Print everything known about a task."""
    known = [
        ("task", str(task.task_id)),
        ("state", task.state.value),
        ("handler", task.handler),
        ("queue", task.queue),
        ("user", task.user or "-"),
        ("priority", str(task.priority)),
        ("attempts", str(task.attempt)),
        ("enqueued", _instant(task.enqueued_at_ms, now)),
    ]
    if task.due_at_ms is not None:
        known.append(("due", _instant(task.due_at_ms, now)))
    if task.discarded_at_ms is not None:
        known.append(("discarded", _instant(task.discarded_at_ms, now)))
    if task.job_id is not None:
        known.append(("job", f"{task.job_id} ({counted(task.items, 'item')} of it not done)"))
    known.append(("arguments", task.body or "{}"))
    if task.error:
        known.append(("error", task.error))
    for line in facts(known):
        click.echo(line)
    if task.traceback:
        click.echo()
        click.echo(plain(task.traceback.rstrip("\n"), lines=True))
    if task.state is TaskState.DISCARDED:
        click.echo(f"\nRun it again: shoestring retry {task.task_id}", err=True)


def cut_short(shown: int, limit: int, session: Session) -> None:
    """Say on stderr that there may be more rows than were asked for."""
    if shown >= limit:
        session.say(f"The first {count(shown)}; there may be more. Narrow it down, or raise --limit.")


def check_names(session: Session, *, queue: str | None = None, handler: str | None = None) -> None:
    """Raise NotFound, with the nearest name, if the daemon knows no such queue or handler.

    Asked after a listing came back empty: an empty list for a misspelt name would be a lie.
    """
    if queue is None and handler is None:
        return
    status = session.ask("status", Nothing(), Status)
    handlers = {one.handler for one in status.handlers}
    if handler is not None and handler not in handlers:
        raise NotFound(unknown("handler", handler, handlers))
    if queue is not None:
        queues = {one.queue for one in status.queues} | {one.queue for one in status.handlers}
        queues |= set(session.config.queues)
        if queue not in queues:
            raise NotFound(unknown("queue", queue, queues))


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """Write the message for a name nobody knows."""
    names = sorted(known)
    if hint := did_you_mean(name, names):
        return f"There is no {kind} {name!r}. {hint}"
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    return f"There is no {kind} {name!r}. The daemon knows {shown or 'none'}."


def _instant(at_ms: int, now: int) -> str:
    return f"{instant(at_ms)} ({when(at_ms, now)})"
