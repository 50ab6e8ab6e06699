"""What is drawn on a real terminal of 80 columns and 24 lines."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import click
import pytest

from shoestring.core.model import JobState

from .conftest import Record
from .records import NOW_MS, a_job, a_status, a_task


def on_a_terminal(*arguments: str, **environ: str) -> tuple[str, int]:
    """Run a command line on a pseudo-terminal; return what it drew and its exit code."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environ = {**os.environ, "TERM": "xterm-256color", **environ}
    command = [sys.executable, "-m", "shoestring", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    drawn = b""
    while True:
        try:
            drawn += os.read(ours, 65_536)
        except OSError:  # EIO: the other end is closed
            break
    os.close(ours)
    return drawn.decode(), process.wait()


def test_watching_draws_one_line_that_moves(recorded: Record) -> None:
    """The bar is what people leave open for an hour."""
    looks = iter(
        [
            a_job(version=10, done=2_000, pending=3_000),
            a_job(state=JobState.DONE, done=4_993, failed=7, pending=0, version=11, finished_at_ms=NOW_MS),
        ]
    )
    recorded({"job.progress": a_job(), "job.wait": lambda _: next(looks)})

    drawn, exit_code = on_a_terminal("jobs", "watch", "3", "--every", "0")

    assert exit_code == 1  # seven items failed
    assert "job 3 block" in drawn
    assert "5,000/5,000 7 failed" in drawn
    assert drawn.count("\n") == 1


def test_a_list_does_not_wrap(recorded: Record) -> None:
    """Twenty rows of two lines each do not fit the screen, and cannot be read down a column."""
    recorded({"tasks": [a_task(handler="myproject.accounts.blocking.jobs.block_all_followers_of_account")]})

    drawn, _ = on_a_terminal("tasks")

    header, row = click.unstyle(drawn).splitlines()
    assert (len(header), len(row) <= 80) == (80, True)
    assert "  myproject.ac" in row
    assert "…  mail" in row


def test_an_error_fits_the_screen(folder: Path) -> None:
    """The last line says what to do; it must not be lost in a block."""
    drawn, exit_code = on_a_terminal("status")

    assert exit_code == 3
    assert max(len(line) for line in click.unstyle(drawn).splitlines()) <= 80
    assert click.unstyle(drawn).startswith("error: No daemon answers on")
    assert "Start it with: shoestring run" in drawn


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_colour_is_left_out_where_it_is_not_wanted(recorded: Record, variable: str, value: str) -> None:
    """Both are old agreements of terminals."""
    recorded({"status": a_status()})

    drawn, _ = on_a_terminal("status", **{variable: value})

    assert "\x1b[" not in drawn
