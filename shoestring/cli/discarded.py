"""`shoestring discarded`: what was given up and why. `shoestring retry` runs it again."""

from __future__ import annotations

from collections.abc import Iterable

import click

from shoestring.api.parameters import ListDiscarded, OneTask
from shoestring.cli.figures import span
from shoestring.cli.group import Command, Group
from shoestring.cli.listing import HANDLER, ID, LIMIT, QUEUE, check_names, cut_short, one_task
from shoestring.cli.session import Session, with_session
from shoestring.cli.table import Cell, Column, rows, terminal_width
from shoestring.core.errors import NotFound
from shoestring.core.model import TaskState, TaskView


@click.group(
    cls=Group, default="list", example="shoestring discarded --handler jobs.send_mail\nshoestring discarded 12"
)
def discarded() -> None:
    """List the tasks that were given up, or show one with its traceback.

    Without a command `discarded` lists and `discarded ID` shows. `shoestring retry` runs them again.
    """


@discarded.command("list", cls=Command, example="shoestring discarded list --handler jobs.send_mail")
@HANDLER
@QUEUE
@LIMIT
@with_session
def list_discarded(session: Session, *, handler: str | None, queue: str | None, limit: int) -> None:
    """List discarded tasks, the latest first."""
    found = session.ask("discarded", ListDiscarded(handler=handler, queue=queue, limit=limit), list[TaskView])
    if not found:
        check_names(session, queue=queue, handler=handler)
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.say("Nothing is discarded. Good.")
        return
    _table(found, session.clock())
    cut_short(len(found), limit, session)
    session.say("\nRead one: shoestring discarded ID    run again: shoestring retry ID")


@discarded.command("show", cls=Command, example="shoestring discarded show 12")
@click.argument("task_id", metavar="ID", type=ID)
@with_session
def show(session: Session, *, task_id: int) -> None:
    """Show one discarded task: its arguments, its last error and the traceback."""
    task = session.ask("task.show", OneTask(task_id=task_id), TaskView)
    if task.state is not TaskState.DISCARDED:
        raise NotFound(
            f"Task {task_id} is not discarded, it is {task.state.value}. Nothing was changed."
            f" See it with: shoestring tasks {task_id}"
        )
    if session.json:
        session.print_json(task)
    else:
        one_task(task, session.clock())


def _table(found: Iterable[TaskView], now: int) -> None:
    columns = [
        Column("ID", right=True),
        Column("HANDLER", flexible=True),
        Column("QUEUE", flexible=True),
        Column("USER", flexible=True),
        Column("TRIES", right=True),
        Column("AGE", right=True),
        Column("ERROR", flexible=True),
    ]
    lines = [
        (
            str(task.task_id),
            task.handler,
            task.queue,
            task.user or Cell("-", dim=True),
            str(task.attempt),
            span(max(0, now - (task.discarded_at_ms or task.enqueued_at_ms))),
            Cell((task.error or "").split("\n")[0], "red"),
        )
        for task in found
    ]
    for line in rows(columns, lines, terminal_width()):
        click.echo(line)
