"""What people see, drawn without a terminal: it fits, and it says what matters."""

from __future__ import annotations

import io
import json
from dataclasses import replace

import msgspec
import pytest
from rich.console import Console, RenderableType

from shoestring.core.model import Ledger, Progress
from shoestring.demo.books import balance
from shoestring.demo.report import Kill, Report
from shoestring.demo.screen import LineScreen, UserView, View, closing, picture
from shoestring.demo.social import Tally


def report(tally: Tally, job: Progress, *, users: int) -> Report:
    names = [f"user-{place}" for place in range(users)]
    tallies = [msgspec.structs.replace(tally, user=name) for name in names]
    return Report(
        items=100 * users,
        seconds=10.0,
        seed=1,
        time_scale=90.0,
        blocks_per_window=1_900,
        books=balance(
            tallies,
            dict.fromkeys(names, job),
            Ledger(accepted=101 * users, completed=96 * users, discarded=5 * users),
        ),
        kills=[Kill(500, 0.5), Kill(700, 0.75)],
        kills_planned=2,
        disk_written=42,
        disk_unit="writes",
        disk_source="on vda, the device under /tmp, whoever made them",
        daemon_written_bytes=36_000_000,
        rss_bytes_max=50_000_000,
        daemon_cpu_s=3.0,
        daemon_exit=0,
        folder=None,
    )


def view(users: int) -> View:
    one = UserView("ada", 10_000, 5_000, 5_010, 12, "parked 3.2 s")
    return View(
        elapsed_s=12.0,
        items=10_000 * users,
        done=5_000 * users,
        items_per_s=1_900.0,
        running=64,
        parked=users,
        lanes=users,
        disk_per_s=1.5,
        disk_unit="writes",
        disk_name="vda",
        rss_bytes=50_000_000,
        wal_bytes=8_000_000,
        kills=1,
        kills_planned=5,
        daemon="pid 4194304, life 12",
        users=[one] * users,
    )


def drawn(renderable: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=80, height=24, force_terminal=False)
    with console.capture() as capture:
        console.print(renderable)
    return capture.get().splitlines()


@pytest.mark.parametrize("users", [1, 10, 11, 12, 1_000])
def test_the_picture_fits_a_small_terminal(users: int) -> None:
    """A line that wraps or a picture higher than the terminal makes the screen jump."""
    lines = drawn(picture("shoestring demo", view(users)))

    assert len(lines) <= 23
    assert max(len(line) for line in lines) <= 80
    assert any("parked 3.2 s" in line for line in lines)


def test_the_closing_table_fits_and_says_that_nothing_is_missing(tally: Tally, job: Progress) -> None:
    """The last screen is what the reader of the README sees."""
    lines = drawn(closing(report(tally, job, users=10)))

    assert max(len(line) for line in lines) <= 80
    assert any("950" in line and "all" in line for line in lines)
    text = " ".join(lines)
    assert "Nothing is missing: the API counts 950 blocked accounts, shoestring says 950" in text
    assert "killed with -9 2 times" in text


def test_the_closing_table_shows_what_does_not_balance(tally: Tally, job: Progress) -> None:
    """Whoever finds a lost item needs to know whose."""
    tally.blocked = 96
    text = " ".join(drawn(closing(report(tally, job, users=2))))

    assert "do NOT balance" in text
    assert "user-1: 95 items done, but the API counts 96 blocked accounts" in text


def test_a_daemon_that_does_not_end_in_order_is_not_good(tally: Tally, job: Progress) -> None:
    """Balanced books alone do not show that a stop works."""
    hung = replace(report(tally, job, users=1), daemon_exit=-9)

    assert not hung.good
    assert "exit code -9" in " ".join(drawn(closing(hung)))


def test_the_figures_for_machines_hold_the_verdict_and_the_books(tally: Tally, job: Progress) -> None:
    """A script must not have to parse the table."""
    tally.blocked = 96
    figures = json.loads(report(tally, job, users=2).as_json())

    assert figures["balanced"] is False
    assert len(figures["problems"]) == 2
    assert figures["total"]["blocked"] == 192
    assert [row["user"] for row in figures["users"]] == ["user-0", "user-1"]
    assert figures["kills"] == [{"at_items": 500, "away_s": 0.5}, {"at_items": 700, "away_s": 0.75}]


def test_without_a_terminal_progress_is_a_line_now_and_then_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """Four redraws a second would fill a log; and stdout belongs to the figures."""
    screen = LineScreen()
    for _ in range(10):
        screen.draw(view(3))

    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert "15,000 of 30,000 items" in said.err
