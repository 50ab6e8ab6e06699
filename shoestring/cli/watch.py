"""Watching one job until it is finished: a live bar on a terminal, lines in a pipe, JSON lines for machines.

The daemon answers `job.wait` as soon as anything changed, which under load is at once, so looks are spaced on this
side. A daemon that restarts in the meantime is waited for: the job is in its database and goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from shoestring.api.parameters import OneJob, WaitJob
from shoestring.cli.figures import count, plain
from shoestring.cli.session import Session, stdout_is_terminal
from shoestring.core.errors import Unavailable
from shoestring.core.model import Progress

_LOOK_S: Final = 20.0
_LIVE_EVERY_S: Final = 0.2
_LINES_EVERY_S: Final = 1.0
#: How long a daemon that went away is waited for, and how often it is tried.
_AWAY_S: Final = 60.0
_TRY_EVERY_S: Final = 0.5

Draw = Callable[[Progress], None]


def watch_job(session: Session, job_id: int, every_s: float | None) -> Progress:
    """Draw the job's progress until it is finished; return the last of it."""
    progress = session.ask("job.progress", OneJob(job_id=job_id), Progress)
    live = stdout_is_terminal() and not session.json
    if every_s is None:
        every_s = _LIVE_EVERY_S if live else _LINES_EVERY_S
    with _live(progress) if live else _lines(session) as draw:
        draw(progress)
        try:
            while not progress.finished:
                time.sleep(every_s)
                progress = _next(session, progress)
                draw(progress)
        except KeyboardInterrupt:
            session.say(f"Job {job_id} goes on; watch it again with: shoestring jobs watch {job_id}")
            raise
    return progress


def _next(session: Session, last: Progress) -> Progress:
    """Return the job's next change, over a restart of the daemon if one happens."""
    away_since: float | None = None
    while True:
        try:
            wanted = WaitJob(job_id=last.job_id, version=last.version, timeout_s=_LOOK_S)
            # The version counts within one life of the daemon: after a restart any answer is news.
            if away_since is not None:
                return session.ask("job.progress", OneJob(job_id=last.job_id), Progress)
            return session.ask("job.wait", wanted, Progress, answer_s=_LOOK_S + 30.0)
        except Unavailable:
            session.close()
            now = time.monotonic()
            if away_since is None:
                away_since = now
                session.say("The daemon is away. The job is safe in its database; waiting for it to come back.")
            elif now - away_since > _AWAY_S:
                raise
            time.sleep(_TRY_EVERY_S)


@contextmanager
def _lines(session: Session) -> Iterator[Draw]:
    def draw(progress: Progress) -> None:
        if session.json:
            session.print_json(progress, line=True)
        else:
            click.echo(_line(progress))

    yield draw


def _line(progress: Progress) -> str:
    total = count(progress.total) if progress.total is not None else f"{count(progress.accepted)}+"
    parts = [f"{count(progress.done)} of {total} done"]
    parts += [f"{count(progress.failed)} failed"] if progress.failed else []
    parts += [f"{count(progress.cancelled)} cancelled"] if progress.cancelled else []
    return f"job {progress.job_id}  {progress.state.value}  " + ", ".join(parts)


@contextmanager
def _live(first: Progress) -> Iterator[Draw]:
    from rich.console import Console
    from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:,.0f}/s" if speed is not None else "", style="dim")

    bars = Bars(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[figures]}", markup=False),
        Rate(),
        TimeRemainingColumn(compact=True),
        console=Console(highlight=False),
        refresh_per_second=5,
        expand=True,
    )
    name = f"job {first.job_id} {plain(first.handler)}"
    bar = bars.add_task(name, total=first.total, completed=_ended(first), figures="")

    def draw(progress: Progress) -> None:
        figures = f"{count(_ended(progress))}/{count(progress.accepted)}{'' if progress.total is not None else '+'}"
        figures += f" {count(progress.failed)} failed" if progress.failed else ""
        bars.update(bar, total=progress.total, completed=_ended(progress), figures=figures)

    with bars:
        yield draw


def _ended(progress: Progress) -> int:
    return progress.done + progress.failed + progress.cancelled
