"""`shoestring jobs`: fan-outs and how far they are."""

from __future__ import annotations

from collections.abc import Iterable

import click

from shoestring.api.parameters import ListJobs, OneJob
from shoestring.cli.cancel import cancel_all
from shoestring.cli.figures import count, counted, instant, span, when
from shoestring.cli.group import Command, Group
from shoestring.cli.listing import ID, LIMIT, cut_short
from shoestring.cli.session import Session, with_session
from shoestring.cli.table import Cell, Column, facts, rows, terminal_width
from shoestring.core.model import JobState, Progress

_COLOURS = {JobState.DONE: "green", JobState.CANCELLED: "yellow"}
JOB_ID = click.argument("job_id", metavar="ID", type=ID)


@click.group(cls=Group, default="list", example="shoestring jobs --state open\nshoestring jobs watch 3")
def jobs() -> None:
    """List, show, watch and cancel jobs. Without a command `jobs` lists and `jobs ID` shows."""


@jobs.command("list", cls=Command, example="shoestring jobs list --state open")
@click.option("--state", type=click.Choice([state.value for state in JobState]), help="Only in this state.")
@LIMIT
@with_session
def list_jobs(session: Session, *, state: str | None, limit: int) -> None:
    """List jobs, the newest first."""
    wanted = ListJobs(state=JobState(state) if state is not None else None, limit=limit)
    found = session.ask("jobs", wanted, list[Progress])
    if session.json:
        session.print_json(found)
        return
    if not found:
        session.say(f"No job is {state}." if state is not None else "There is no job yet.")
        session.say("A program opens one with `await handler.fan_out(items)`.")
        return
    _table(found, session.clock())
    cut_short(len(found), limit, session)


@jobs.command("show", cls=Command, example="shoestring jobs show 3")
@JOB_ID
@with_session
def show(session: Session, *, job_id: int) -> None:
    """Show how far one job is."""
    progress = session.ask("job.progress", OneJob(job_id=job_id), Progress)
    if session.json:
        session.print_json(progress)
    else:
        print_job(progress, session.clock())


@jobs.command("watch", cls=Command, example="shoestring jobs watch 3")
@JOB_ID
@click.option(
    "--every",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Least time between two looks. [default: 0.2; 1 in a pipe]",
)
@with_session
def watch(session: Session, *, job_id: int, every: float | None) -> None:
    """Watch one job until it is finished. With --json, one line per look.

    Exits 0 when every item is done, 1 when items failed or the job was cancelled. Ctrl-C stops watching, not the job.
    """
    from shoestring.cli.watch import watch_job

    last = watch_job(session, job_id, every)
    if last.error is not None:
        session.say(f"Not every item was found: {last.error}")
    if last.failed or last.error is not None or last.state is JobState.CANCELLED:
        raise click.exceptions.Exit(1)


@jobs.command("cancel", cls=Command, example="shoestring jobs cancel 3")
@click.argument("job_ids", metavar="ID...", type=ID, nargs=-1, required=True)
@with_session
def cancel(session: Session, *, job_ids: tuple[int, ...]) -> None:
    """Cancel jobs: items not yet begun are dropped, running ones are asked to stop."""
    cancel_all(session, job_ids, jobs_only=True)


def print_job(progress: Progress, now: int) -> None:
    """Print everything known about a job."""
    known = [
        ("job", str(progress.job_id)),
        ("state", progress.state.value),
        ("handler", progress.handler),
        ("queue", progress.queue),
        ("user", progress.user or "-"),
        ("items", f"{count(progress.accepted)}" + ("" if progress.total is not None else " so far; more are coming")),
        ("done", f"{count(progress.done)}{_share(progress)}"),
        ("failed", count(progress.failed)),
        ("cancelled", count(progress.cancelled)),
        ("pending", count(progress.pending)),
        ("opened", f"{instant(progress.created_at_ms)} ({when(progress.created_at_ms, now)})"),
    ]
    if progress.finished_at_ms is not None:
        took = span(progress.finished_at_ms - progress.created_at_ms)
        known.append(("finished", f"{instant(progress.finished_at_ms)} (took {took})"))
    if progress.error is not None:
        known.append(("error", progress.error))
    for line in facts(known):
        click.echo(line)
    if progress.failed:
        items = counted(progress.failed, "failed item")
        click.echo(f"\n{items}: shoestring discarded --handler {progress.handler}", err=True)


def _table(found: Iterable[Progress], now: int) -> None:
    columns = [
        Column("ID", right=True),
        Column("STATE"),
        Column("HANDLER", flexible=True),
        Column("USER", flexible=True),
        Column("ITEMS", right=True),
        Column("DONE", right=True),
        Column("FAILED", right=True),
        Column("PENDING", right=True),
        Column("AGE", right=True),
    ]
    lines = [
        (
            str(job.job_id),
            Cell(job.state.value, _COLOURS.get(job.state)),
            job.handler,
            job.user or Cell("-", dim=True),
            count(job.accepted) + ("" if job.total is not None else "+"),
            count(job.done),
            Cell(count(job.failed), "red") if job.failed else Cell("0", dim=True),
            count(job.pending) if job.pending else Cell("0", dim=True),
            span(max(0, now - job.created_at_ms)),
        )
        for job in found
    ]
    for line in rows(columns, lines, terminal_width()):
        click.echo(line)


def _share(progress: Progress) -> str:
    return f" ({progress.done / progress.total:.0%})" if progress.total else ""
