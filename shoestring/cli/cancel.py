"""`shoestring cancel`: what shall not run. Tasks and jobs are numbered apart, so which it is has to be said."""

from __future__ import annotations

from collections.abc import Sequence

import click

from shoestring.api.parameters import OneJob, OneTask
from shoestring.cli.figures import count, counted, plain
from shoestring.cli.group import Command, Group
from shoestring.cli.session import Session, with_session
from shoestring.core.errors import ShoestringError
from shoestring.core.model import Progress, TaskState, TaskView


@click.group(cls=Group, example="shoestring cancel task 12 13\nshoestring cancel job 3")
def cancel() -> None:
    """Cancel tasks or jobs. Each is numbered on its own: say `task` or `job` before the ID."""


@cancel.command("task", cls=Command, example="shoestring cancel task 12 13")
@click.argument("task_ids", metavar="ID...", type=click.IntRange(min=1), nargs=-1, required=True)
@with_session
def task(session: Session, *, task_ids: tuple[int, ...]) -> None:
    """Cancel tasks. One that runs is asked to stop; what it did so far stays done."""
    cancelled: list[TaskView] = []
    try:
        for task_id in task_ids:
            cancelled.append(session.ask("task.cancel", OneTask(task_id=task_id), TaskView))
            if not session.json:
                click.echo(_task_line(cancelled[-1]))
    except ShoestringError:
        _say_rest(session, task_ids, len(cancelled), "task")
        raise
    finally:
        if session.json:
            session.print_json(cancelled)


@cancel.command("job", cls=Command, example="shoestring cancel job 3")
@click.argument("job_ids", metavar="ID...", type=click.IntRange(min=1), nargs=-1, required=True)
@with_session
def job(session: Session, *, job_ids: tuple[int, ...]) -> None:
    """Cancel jobs: items not yet begun are dropped from the queue, running ones end as they may."""
    cancel_jobs(session, job_ids)


def cancel_jobs(session: Session, job_ids: Sequence[int]) -> None:
    cancelled: list[Progress] = []
    try:
        for job_id in job_ids:
            cancelled.append(session.ask("job.cancel", OneJob(job_id=job_id), Progress))
            if not session.json:
                click.echo(_job_line(cancelled[-1]))
    except ShoestringError:
        _say_rest(session, job_ids, len(cancelled), "job")
        raise
    finally:
        if session.json:
            session.print_json(cancelled)


def _task_line(task: TaskView) -> str:
    name = f"Task {task.task_id} ({plain(task.handler)})"
    return f"{name} is asked to stop." if task.state is TaskState.RUNNING else f"{name} is cancelled."


def _job_line(progress: Progress) -> str:
    of = f" of {count(progress.total)}" if progress.total is not None else ""
    left = f", {count(progress.pending)} still running" if progress.pending else ""
    return (
        f"Job {progress.job_id} ({plain(progress.handler)}) is cancelled:"
        f" {count(progress.done)}{of} done, {counted(progress.cancelled, 'item')} cancelled{left}."
    )


def _say_rest(session: Session, ids: Sequence[int], done: int, kind: str) -> None:
    """Say, before the error, which of several were not reached."""
    if len(ids) > 1:
        rest = " ".join(map(str, ids[done:]))
        session.say(f"{counted(done, kind)} cancelled; not cancelled: {rest}")
