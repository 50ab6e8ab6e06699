"""The daemon on one page."""

from __future__ import annotations

import json

import click
import msgspec
import pytest

from shoestring.core.model import LaneView, Ledger, Status

from .conftest import Invoke, Record
from .records import NOW_MS, a_queue, a_status


def test_the_page_tells_the_daemon_its_work_and_its_books(invoke: Invoke, recorded: Record) -> None:
    """One look must answer: does it run, how much is left, does it add up."""
    recorded({"status": a_status(jobs_open=2)})

    result = invoke("status")

    assert result.exit_code == 0
    assert result.stdout == (
        "shoestring 0.1.0   up 3 d 4 h   pid 812   generation 7\n"
        "\n"
        "work    2 of 100 slots running · 247 pending · 5 delayed · 2 open jobs\n"
        "memory  28.6 MiB\n"
        "disk    12.4 MiB + 8.0 MiB WAL · 410 commits, 97 flushes\n"
        "file    /srv/app/shoestring.db\n"
        "books   1,250 accepted = 1,000 completed + 3 discarded + 247 pending\n"
        "\n"
        "QUEUE  READY  DELAYED  RUNNING  PARKED  COMPLETED  DISCARDED\n"
        "mail     240        5        2       0      1,000          3\n"
    )


def test_json_is_the_whole_answer_and_nothing_else(invoke: Invoke, recorded: Record) -> None:
    """Monitoring reads it; a figure left out of the page must not be left out here."""
    status = a_status(waiting_handlers={"old": 3})
    recorded({"status": status})

    result = invoke("status", "--json")

    assert msgspec.json.decode(result.stdout, type=Status) == status
    assert result.stderr == ""


def test_the_books_write_out_every_way_a_task_ended(invoke: Invoke, recorded: Record) -> None:
    """A task that vanished would show as a sum that does not add up."""
    ledger = Ledger(accepted=21, completed=1, discarded=2, cancelled=3, expired=4, dropped=5)
    recorded({"status": a_status(ledger=ledger)})

    page = invoke("status").stdout

    assert (
        "books   21 accepted = 1 completed + 2 discarded\n        + 3 cancelled + 4 expired + 5 dropped + 6 pending\n"
    ) in page


def test_a_parked_lane_says_why_and_for_how_long(invoke: Invoke, recorded: Record) -> None:
    """ "Why does nothing happen for alice" is the most asked question."""
    lane = LaneView(
        queue="block",
        user="alice",
        pending=500,
        running=0,
        parked_until_ms=NOW_MS + 400_000,
        parked_reason="429\x1b[2J Too Many Requests",
    )
    recorded({"status": a_status(parked=[lane])})

    assert (
        "PARKED              FOR  PENDING  REASON\nblock/alice  6 min 40 s      500  429\\x1b[2J Too Many Requests\n"
    ) in invoke("status").stdout


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ({"accepting": False}, "Not accepting new tasks: the disk is almost full. What is stored is safe"),
        ({"waiting_handlers": {"old": 1}}, "1 item waits for handler old, which the app does not declare."),
        ({"abandoned": 2}, "2 calls outlived the hard time limit and go on unseen."),
        ({"suspects": 1}, "1 task ran when the daemon last died"),
        ({"discarded_kept": 3}, "3 discarded tasks kept: shoestring discarded, shoestring retry"),
    ],
)
def test_what_needs_somebody_is_said_in_words(
    invoke: Invoke, recorded: Record, changes: dict[str, object], note: str
) -> None:
    """A figure has to be known to be read; a sentence says what to do."""
    recorded({"status": a_status(**changes)})

    assert note in invoke("status").stdout


def test_nothing_is_said_when_nothing_is_wrong(invoke: Invoke, recorded: Record) -> None:
    """A calm page makes the one warning visible."""
    recorded({"status": a_status()})

    assert "\n\n" not in invoke("status").stdout.partition("QUEUE")[2]


def test_a_daemon_without_queues_says_how_to_begin(invoke: Invoke, recorded: Record) -> None:
    """An empty table looks like an error on the first day."""
    recorded({"status": a_status(queues=[])})

    assert "No queue has seen a task yet. Enqueue one: shoestring enqueue HANDLER" in invoke("status").stdout


def test_many_queues_do_not_push_the_head_off_the_screen(invoke: Invoke, recorded: Record) -> None:
    """The page ends with how many more there are."""
    recorded({"status": a_status(queues=[a_queue(f"q{n}") for n in range(25)])})

    assert "and 5 more queues: --json shows all\n" in invoke("status").stdout


def test_colour_is_only_for_terminals_that_want_it(
    invoke: Invoke, recorded: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NO_COLOR is a promise to people who cannot read dim grey."""
    recorded({"status": a_status()})

    coloured = invoke("status", color=True).stdout
    plain = invoke("status").stdout
    monkeypatch.setenv("NO_COLOR", "1")

    assert "\x1b[" in coloured
    assert click.unstyle(coloured) == plain == invoke("status", color=True).stdout


def test_an_answer_of_another_version_is_no_traceback(invoke: Invoke, recorded: Record) -> None:
    """After an upgrade the old daemon still runs until it is restarted."""
    recorded({"status": {"version": "9.0"}})

    result = invoke("status")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "restart the daemon after an upgrade" in result.stderr


def test_an_error_with_json_is_json_too(invoke: Invoke) -> None:
    """A program reads why, and when to come back, without parsing English."""
    result = invoke("status", "--json")

    error = json.loads(result.stderr)["error"]
    assert (result.exit_code, result.stdout, error["code"]) == (3, "", -32060)
    assert "shoestring run" in error["message"]
