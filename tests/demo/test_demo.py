"""The whole demo in small: real processes, a few thousand items, windows of a second."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tomli

from shoestring.core.errors import UsageError
from shoestring.demo import Options
from shoestring.demo.blocking import rules_for

IN_SMALL = """
import sys
from shoestring.demo import Options, main

sys.exit(main(Options(items=3_000, users=3, time_scale=1_800, latency_ms=(0.5, 3), {more})))
"""


@contextmanager
def demo(folder: Path, more: str) -> Iterator[subprocess.Popen[str]]:
    """Start a small demo whose folders are made in `folder`; it ends, at the latest, with the `with` block."""
    process = subprocess.Popen(
        [sys.executable, "-c", IN_SMALL.format(more=more)],
        env={**os.environ, "TMPDIR": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.terminate()  # leaving Popen's own block would wait for a demo that hangs


@pytest.mark.slow
def test_two_kills_lose_nothing_and_the_books_balance(tmp_path: Path) -> None:
    """The promise of the whole package, on every run of the test suite."""
    with demo(tmp_path, "kill=2, json=True, quiet=True") as process:
        out, err = process.communicate(timeout=90)

    assert err == ""
    assert process.returncode == 0
    figures = json.loads(out)
    assert figures["balanced"] is True
    assert figures["problems"] == []
    total = figures["total"]
    assert (total["blocked"], total["gone"] + total["suspended"]) == (total["done"], total["discarded"])
    assert total["blocked"] + total["discarded"] == 3_000
    assert total["limited"] > 0
    assert len(figures["kills"]) == 2
    assert figures["daemon_exit"] == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open to wait for a grandchild")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_when_the_demo_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    """A daemon left behind would hold a port, a lock and the CPU of whoever tried the demo once."""
    with demo(tmp_path, "json=True") as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        ends = [os.pidfd_open(int(child)) for child in children]
        process.send_signal(number)
        process.wait()

        assert re.search(r"pid \d+, life 1", first)
        assert len(ends) == 2
        assert [select.select([end], [], [], 10)[0] for end in ends] == [[end] for end in ends]
        for end in ends:
            os.close(end)
    if number == signal.SIGKILL:
        (config,) = tmp_path.glob("shoestring-demo-*/shoestring.toml")
        shutil.rmtree(tomli.loads(config.read_text())["runtime_dir"])  # nobody was left to do it
    else:
        assert process.returncode == 130
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (Options(users=0), "--users 0"),
        (Options(items=5, users=6), "--items 5"),
        (Options(kill=-1), "--kill -1"),
        (Options(time_scale=0.5), "--time-scale 0.5"),
        (Options(time_scale=float("nan")), "--time-scale nan"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_anything_starts(options: Options, said: str) -> None:
    """`--items 0` must not divide by zero somewhere in the middle."""
    with pytest.raises(UsageError, match=said):
        options.check()


@pytest.mark.parametrize("users", [1, 3, 10, 40])
def test_every_user_runs_into_the_windows_and_every_item_has_a_user(users: int) -> None:
    """A demo of rate limits in which nobody is ever limited shows nothing."""
    rules = rules_for(Options(users=users, items=10_007))

    assert sum(rules.followers) == 10_007
    assert len(set(rules.users)) == users
    assert all(followers > 2 * rules.blocks_per_window for followers in rules.followers)
