"""`shoestring cancel`: what shall not run. Tasks and jobs are numbered from one sequence, so an ID says which it is."""

from __future__ import annotations

from collections.abc import Sequence

import click

from shoestring.api.parameters import OneJob, OneTask
from shoestring.cli.figures import count, counted, plain
from shoestring.cli.group import Command
from shoestring.cli.listing import ID
from shoestring.cli.session import Session, with_session
from shoestring.core.errors import Conflict, NotFound, ShoestringError
from shoestring.core.model import JobState, Progress, TaskState, TaskView


@click.command(cls=Command, example="shoestring cancel 12\nshoestring cancel 12 13 20008")
@click.argument("ids", metavar="ID...", type=ID, nargs=-1, required=True)
@with_session
def cancel(session: Session, *, ids: tuple[int, ...]) -> None:
    """Cancel tasks or jobs.

    What runs is asked to stop, what was done stays done. Of a job the items not yet begun are dropped. Exits 5 if
    one of the IDs is no stored task or job, after cancelling the others.
    """
    cancel_all(session, ids, jobs_only=False)


def cancel_all(session: Session, ids: Sequence[int], *, jobs_only: bool) -> None:
    """Cancel each of `ids` and print what became of it; end with the first error's code if there was one."""
    tasks: list[TaskView] = []
    jobs: list[Progress] = []
    failed: ShoestringError | None = None
    try:
        for one in ids:
            try:
                cancelled = _cancel(session, one, jobs_only=jobs_only)
            except (NotFound, Conflict) as error:
                # It ended a moment ago, as likely as not: no reason to let the others run.
                failed = failed or error
                session.say(str(error))
                continue
            if isinstance(cancelled, TaskView):
                tasks.append(cancelled)
            else:
                jobs.append(cancelled)
            if not session.json:
                click.echo(_line(cancelled))
    finally:
        if session.json:
            session.print_json({"tasks": tasks, "jobs": jobs})
    if failed is not None:
        raise click.exceptions.Exit(failed.exit_code)


def _cancel(session: Session, one: int, *, jobs_only: bool) -> TaskView | Progress:
    if not jobs_only:
        try:
            return session.ask("task.cancel", OneTask(task_id=one), TaskView)
        except NotFound:
            pass
    try:
        return session.ask("job.cancel", OneJob(job_id=one), Progress)
    except NotFound as error:
        kind = "job" if jobs_only else "task or job"
        raise NotFound(f"There is no {kind} {one} to cancel: it ended, or never was.") from error


def _line(cancelled: TaskView | Progress) -> str:
    if isinstance(cancelled, TaskView):
        name = f"Task {cancelled.task_id} ({plain(cancelled.handler)})"
        return f"{name} is asked to stop." if cancelled.state is TaskState.RUNNING else f"{name} is cancelled."
    if cancelled.state is JobState.DONE:
        return f"Job {cancelled.job_id} ({plain(cancelled.handler)}) was done already: nothing to cancel."
    of = f" of {count(cancelled.total)}" if cancelled.total is not None else ""
    left = f", {count(cancelled.pending)} still running" if cancelled.pending else ""
    return (
        f"Job {cancelled.job_id} ({plain(cancelled.handler)}) is cancelled:"
        f" {count(cancelled.done)}{of} done, {counted(cancelled.cancelled, 'item')} cancelled{left}."
    )
