"""`shoestring tasks`: what is stored, task by task."""

from __future__ import annotations

import click

from shoestring.api.parameters import ListTasks, OneTask
from shoestring.cli.group import Command, Group
from shoestring.cli.listing import HANDLER, ID, LIMIT, QUEUE, USER, check_names, cut_short, one_task, task_table
from shoestring.cli.session import Session, with_session
from shoestring.core.model import TaskState, TaskView


@click.group(cls=Group, default="list", example="shoestring tasks --queue mail\nshoestring tasks 12")
def tasks() -> None:
    """List stored tasks, or show one.

    Without a command `tasks` lists and `tasks ID` shows. A task that ended is not stored any more, unless
    it was discarded.
    """


@tasks.command("list", cls=Command, example="shoestring tasks list --state delayed --queue mail")
@QUEUE
@USER
@HANDLER
@click.option("--state", type=click.Choice([state.value for state in TaskState]), help="Only in this state.")
@LIMIT
@with_session
def list_tasks(
    session: Session, *, queue: str | None, user: str | None, handler: str | None, state: str | None, limit: int
) -> None:
    """List stored tasks: running ones first, then in the order they are due to run."""
    wanted = ListTasks(
        queue=queue, user=user, handler=handler, state=TaskState(state) if state is not None else None, limit=limit
    )
    found = session.ask("tasks", wanted, list[TaskView])
    if not found:
        check_names(session, queue=queue, handler=handler)
    if session.json:
        session.print_json(found)
        return
    if not found:
        filtered = (queue, user, handler, state) != (None, None, None, None)
        session.say("No such task is stored." if filtered else "Nothing is stored: all work is done.")
        session.say("Store one: shoestring enqueue HANDLER '{\"argument\": 1}'")
        return
    task_table(found, session.clock())
    cut_short(len(found), limit, session)


@tasks.command("show", cls=Command, example="shoestring tasks show 12")
@click.argument("task_id", metavar="ID", type=ID)
@with_session
def show(session: Session, *, task_id: int) -> None:
    """Show everything known about one task: arguments, attempts, last error, traceback."""
    task = session.ask("task.show", OneTask(task_id=task_id), TaskView)
    if session.json:
        session.print_json(task)
    else:
        one_task(task, session.clock())
