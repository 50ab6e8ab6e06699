"""What people see: progress while it runs, the closing table at the end. Fits 80 columns and 24 lines.

rich is loaded only to draw. Without a terminal, and beside `--json`, progress is a line on stderr every few seconds.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from shoestring.demo.books import Row
from shoestring.demo.report import Report

#: More users than fit are summed up in one line.
USERS_SHOWN: Final = 11
LINE_EVERY_S: Final = 5.0
#: Rows of the closing table; of a thousand users those with a problem matter, and the sums.
ROWS_SHOWN: Final = 40


@dataclass(frozen=True, slots=True)
class UserView:
    user: str
    items: int
    done: int  # and discarded: settled
    counted: int  # accounts the API has settled
    limited: int  # 429s so far
    state: str  # "running", "parked 3.2 s", "done", ...


@dataclass(frozen=True, slots=True)
class View:
    """One moment of the demo."""

    elapsed_s: float
    items: int
    done: int
    items_per_s: float
    running: int
    parked: int
    lanes: int
    disk_per_s: float
    disk_unit: str
    disk_name: str
    rss_bytes: int
    wal_bytes: int
    kills: int
    kills_planned: int
    daemon: str  # "pid 4711, life 2" or "killed, coming back"
    users: Sequence[UserView]


class Screen(Protocol):
    """Where progress goes."""

    def draw(self, view: View) -> None: ...

    def close(self) -> None: ...


class LiveScreen:
    """Redraws in place. No thread of its own: it is drawn when `draw` is called."""

    def __init__(self, console: Console, title: str) -> None:
        self._title = title
        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._live.start()

    def draw(self, view: View) -> None:
        self._live.update(picture(self._title, view), refresh=True)

    def close(self) -> None:
        self._live.stop()


class LineScreen:
    """A line every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def draw(self, view: View) -> None:
        if view.elapsed_s >= self._next_s:
            self._next_s = view.elapsed_s + LINE_EVERY_S
            print(line(view), file=sys.stderr, flush=True)

    def close(self) -> None:
        pass


class NoScreen:
    def draw(self, view: View) -> None:
        pass

    def close(self) -> None:
        pass


def open_screen(title: str, *, as_json: bool, quiet: bool, color: bool | None) -> Screen:
    """Return where progress is shown: redrawn on a terminal, else as lines, else nowhere."""
    if quiet:
        return NoScreen()
    if as_json or not sys.stdout.isatty():
        return LineScreen()
    return LiveScreen(console(color), title)


def console(color: bool | None) -> Console:
    """Return a console on stdout; `color=None` leaves it to the terminal and NO_COLOR."""
    return Console(
        no_color=True if color is False else None,
        force_terminal=True if color else None,
        highlight=False,
        soft_wrap=False,
    )


def line(view: View) -> str:
    """Return one moment in a line."""
    return (
        f"{view.elapsed_s:5.1f} s  {view.done:,} of {view.items:,} items  {view.items_per_s:,.0f}/s  "
        f"{view.parked} of {view.lanes} lanes parked  {_disk(view)}  RSS {_mb(view.rss_bytes)}  {view.daemon}"
    )


def picture(title: str, view: View) -> RenderableType:
    """Return one moment drawn: all items, then each user, then what it costs."""
    share = view.done / view.items
    facts = Table.grid(padding=(0, 3))
    facts.add_row(
        f"[bold]{view.items_per_s:,.0f}[/] items/s",
        f"[bold]{view.running}[/] running",
        f"[bold yellow]{view.parked}[/] of {view.lanes} lanes parked",
        f"{view.elapsed_s:.0f} s",
    )
    costs = Table.grid(padding=(0, 2))
    costs.add_row("disk", f"[bold]{_disk(view)}[/] on {view.disk_name}, write-ahead log {_mb(view.wal_bytes)}")
    costs.add_row("daemon", f"[bold]{_mb(view.rss_bytes)}[/] resident, {view.daemon}")
    if view.kills_planned:
        costs.add_row("kill -9", f"[bold red]{view.kills}[/] of {view.kills_planned}")
    bar = Table.grid(padding=(0, 1))
    bar.add_row(_bar(view.items, view.done, 44), f"[bold]{view.done:,}[/] of {view.items:,}", f"{share:.0%}")
    return Group(Text(title, style="bold"), "", bar, facts, "", _users(view), "", costs)


def _users(view: View) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False)
    table.add_column("user", width=8, no_wrap=True)
    table.add_column("", width=22)
    table.add_column("settled", justify="right", width=9)
    table.add_column("API counts", justify="right", width=10)
    table.add_column("429s", justify="right", width=5)
    table.add_column("lane", width=12, no_wrap=True)
    shown = view.users if len(view.users) <= USERS_SHOWN else view.users[: USERS_SHOWN - 1]
    for user in shown:
        style = "yellow" if user.state.startswith("parked") else "green" if user.state == "done" else ""
        table.add_row(
            user.user,
            _bar(user.items, user.done, 22),
            f"{user.done:,}",
            f"{user.counted:,}",
            f"{user.limited:,}",
            Text(user.state, style=style),
        )
    if rest := view.users[len(shown) :]:
        table.add_row(
            f"+ {len(rest):,}",
            _bar(sum(user.items for user in rest), sum(user.done for user in rest), 22),
            f"{sum(user.done for user in rest):,}",
            f"{sum(user.counted for user in rest):,}",
            f"{sum(user.limited for user in rest):,}",
            f"{sum(user.state == 'done' for user in rest):,} done",
        )
    return table


def _bar(total: int, done: int, width: int) -> ProgressBar:
    return ProgressBar(total, done, width=width, complete_style="cyan", finished_style="green")


def closing(report: Report) -> RenderableType:
    """Return the closing table: what the API counts beside what shoestring says, and the verdict."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", pad_edge=False, show_footer=True)
    total = report.books.total
    columns = [
        ("\nuser", "left", [row.user for row in report.books.rows], total.user),
        *(
            (heading, "right", [f"{getattr(row, name):,}" for row in report.books.rows], f"{getattr(total, name):,}")
            for heading, name in (
                ("blocked\nAPI", "blocked"),
                ("done\nqueue", "done"),
                ("gone\nAPI", "gone"),
                ("suspended\nAPI", "suspended"),
                ("discarded\nqueue", "discarded"),
                ("repeated\ncalls", "repeated"),
                ("\n429s", "limited"),
                ("\ntold", "told"),
            )
        ),
    ]
    for heading, justify, _, footer in columns:
        table.add_column(heading, justify="right" if justify == "right" else "left", footer=footer, footer_style="bold")
    for row in list(zip(*(cells for _, _, cells, _ in columns), strict=True))[:ROWS_SHOWN]:
        table.add_row(*row)
    sentences = [Text(sentence, style=style) for sentence, style in _sentences(report)]
    return Group(table, "", *sentences)


def _sentences(report: Report) -> Iterable[tuple[str, str]]:
    books = report.books
    yield _verdict(books.total, report), "bold green" if books.balanced else "bold red"
    for problem in books.problems[:ROWS_SHOWN]:
        yield f"  {problem}", "red"
    if report.daemon_exit != 0:
        yield f"The daemon did not end in order when it was told to: exit code {report.daemon_exit}.", "bold red"
    yield _repeats(books.total, report), ""
    pace = f"{report.seconds:.1f} s, {report.items_per_s:,.0f} items/s"
    yield f"{pace}; the daemon used {report.daemon_cpu_s:.1f} s of CPU and at most {_mb(report.rss_bytes_max)}.", ""
    disk = f"{report.disk_written:,} {report.disk_unit}, {report.disk_per_s:.1f}/s, {report.disk_source}"
    yield f"{disk}; the daemon itself wrote {_mb(report.daemon_written_bytes)}.", ""
    if report.folder is not None:
        yield f"Config, database and logs are kept in {report.folder}", ""


def _verdict(total: Row, report: Report) -> str:
    if not report.books.balanced:
        return "The books do NOT balance:"
    return (
        f"Nothing is missing: the API counts {total.blocked:,} blocked accounts, shoestring says {total.done:,};"
        f" {total.gone + total.suspended:,} gone or suspended, {total.discarded:,} discarded."
    )


def _repeats(total: Row, report: Report) -> str:
    other = total.repeated - total.repeated_late
    late = f"{total.repeated_late:,} calls were repeated because the API answered too late"
    if not report.kills_planned:
        return f"{late}, {other:,} for any other reason."
    times = f"{len(report.kills)} times"
    if len(report.kills) < report.kills_planned:
        times += f" (there were too few items for {report.kills_planned})"
    away_s = sum(kill.away_s for kill in report.kills)
    return (
        f"The daemon was killed with -9 {times} and was away {away_s:.1f} s in all:"
        f" {other:,} calls were repeated because of it; {late}."
    )


def _disk(view: View) -> str:
    return f"{view.disk_per_s:,.1f} {view.disk_unit}/s"


def _mb(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
