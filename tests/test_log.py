"""Log lines: data for machines, words for people, and nothing anybody else can forge."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoestring.config import LogConfig
from shoestring.log import EVENTS, TEXT_CHARS_MAX, configure, escaped, log

PACKAGE = Path(__file__).parent.parent / "shoestring"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """Leave the log as a program that never configured it finds it."""
    yield
    log.use(None)


@pytest.fixture
def json_log() -> io.StringIO:
    out = io.StringIO()
    configure(LogConfig(format="json"), out)
    return out


@pytest.fixture
def console_log() -> io.StringIO:
    out = io.StringIO()
    configure(LogConfig(format="console"), out)
    return out


def test_a_line_is_one_json_object_with_time_level_and_event_first(json_log: io.StringIO) -> None:
    """What reads logs reads lines."""
    log.info("daemon_started", generation=3, database=Path("/srv/q.db"))

    line = json_log.getvalue()
    assert line.count("\n") == 1
    assert list(json.loads(line)) == ["at", "level", "event", "generation", "database"]
    assert json.loads(line)["database"] == "/srv/q.db"


def test_nothing_logged_can_forge_a_line_or_steer_a_terminal(json_log: io.StringIO, subtests: pytest.Subtests) -> None:
    """Queue names, users and errors come from outside; an operator reads the log as root."""
    evil = "a\n{}\r\x1b[2J\x7f\x9b\u2028\u202e\udc80"
    log.info("daemon_started", queue=evil)
    as_json = json_log.getvalue()
    out = io.StringIO()
    configure(LogConfig(format="console"), out)
    log.info("daemon_started", queue=evil)

    for text in (as_json, out.getvalue()):
        with subtests.test(text=text):
            assert text.endswith("\n")
            assert text[:-1].isprintable()
    assert json.loads(as_json)["queue"] == escaped(evil)


def test_json_keeps_text_as_it_was(json_log: io.StringIO) -> None:
    """Escapes are the encoding's, not part of the data."""
    log.info("daemon_started", queue="a\n\x1b\x9b\u202eé")

    assert json.loads(json_log.getvalue())["queue"] == "a\n\x1b\x9b\u202eé"


def test_a_console_line_reads_like_a_sentence(console_log: io.StringIO) -> None:
    """It is for the person who started the daemon by hand."""
    log.info("daemon_started", generation=3, note="two words", empty="")

    assert console_log.getvalue()[8:] == ' info    daemon_started generation=3 note="two words" empty=""\n'


def test_an_error_carries_its_traceback_and_a_warning_only_its_text(json_log: io.StringIO) -> None:
    """What is worth waking somebody is worth its stack; what is retried is not."""
    try:
        raise ValueError("broken")
    except ValueError as error:
        log.warning("daemon_failed", error=error)
        log.error("daemon_failed", error=error)

    warning, failure = (json.loads(line) for line in json_log.getvalue().splitlines())
    assert (warning["error"], warning.get("traceback")) == ("ValueError: broken", None)
    assert failure["traceback"].endswith("ValueError: broken")


def test_a_traceback_is_indented_on_the_console(console_log: io.StringIO) -> None:
    """An indented line cannot be mistaken for an event."""
    try:
        raise ValueError("one\ntwo")
    except ValueError as error:
        log.error("daemon_failed", error=error)

    first, *rest = console_log.getvalue().splitlines()
    assert first.endswith('daemon_failed error="ValueError: one\\ntwo"')
    assert all(line.startswith("    ") for line in rest)


def test_a_huge_text_is_cut(json_log: io.StringIO) -> None:
    """One failed call must not cost a megabyte of log."""
    log.info("daemon_started", error="x" * 1_000_000)

    assert len(json.loads(json_log.getvalue())["error"]) == TEXT_CHARS_MAX


def test_levels_below_the_configured_one_are_silent() -> None:
    """`level` is how an operator turns the volume down."""
    out = io.StringIO()
    configure(LogConfig(level="warning", format="json"), out)

    log.debug("daemon_started")
    log.info("daemon_started")
    log.warning("daemon_failed")

    assert [json.loads(line)["event"] for line in out.getvalue().splitlines()] == ["daemon_failed"]


def test_an_embedding_program_sees_warnings_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A library does not talk unasked, but it does not hide trouble either."""
    log.info("daemon_started")
    log.warning("daemon_failed")

    assert [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()] == ["daemon_failed"]


def test_a_log_that_cannot_be_written_stops_no_work() -> None:
    """A full disk under the log must not become a task that fails, or one that is run twice."""
    with Path("/dev/full").open("wb", buffering=0) as raw:
        full = io.TextIOWrapper(raw, write_through=True)
        configure(LogConfig(format="json"), full)

        log.error("daemon_failed")

        with pytest.raises(OSError, match="No space left"):
            full.write("so it would have been an error")
        full.detach()


def logged() -> Iterator[tuple[str, str]]:
    """Yield (event, place) of every call of the log in the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id == "log"
                and node.args
                and isinstance(node.args[0], ast.Constant)
            ):
                yield str(node.args[0].value), f"{file.relative_to(PACKAGE)}:{node.lineno}"


def test_the_list_of_events_is_closed_and_holds_no_more_than_is_logged() -> None:
    """Alerts are written against these names; one that changes silently is an alert that never fires."""
    assert {event for event, _ in logged()} == EVENTS
    assert [event for event in EVENTS if not re.fullmatch("[a-z]+(_[a-z]+)+", event)] == []
