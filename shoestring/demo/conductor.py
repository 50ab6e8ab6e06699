"""Runs a scene on a stage and says how it went: the whole life of `shoestring demo`, its signals and its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shoestring.core.errors import ShoestringError
from shoestring.demo import Options
from shoestring.demo.blocking import block_followers
from shoestring.demo.report import Report
from shoestring.demo.screen import closing, console, open_screen
from shoestring.demo.stage import ChildFailed, Stage

INTERRUPTED: Final = 130  # what shells report for a command ended by Ctrl-C


def conduct(options: Options) -> int:
    """Play the demo and return its exit code. Leaves no process behind, whatever happens."""
    try:
        with _ended_like_ctrl_c(), Stage(keep=options.keep) as stage:
            report = _report(stage, options)
    except KeyboardInterrupt:
        print("stopped: the daemon and the API have ended", file=sys.stderr)
        return INTERRUPTED
    if report is None:
        return 1
    if options.json:
        print(report.as_json())
    else:
        console(options.color).print(closing(report))
    return 0 if report.good else 1


def _report(stage: Stage, options: Options) -> Report | None:
    """Play the demo; None if it failed, which has been said. Failed or not balanced, the folder is kept."""
    # This process is a producer like any other: it finds the daemon by the configuration.
    os.environ["SHOESTRING_CONFIG"] = str(stage.config)
    try:
        return asyncio.run(_play(stage, options))
    except (ChildFailed, ShoestringError, OSError) as error:
        stage.keep = True
        print(f"the demo failed: {error}\nConfig, database and logs are kept in {stage.folder}", file=sys.stderr)
        return None


async def _play(stage: Stage, options: Options) -> Report:
    title = f"shoestring demo: {options.items:,} accounts to block for {options.users:,} users"
    screen = open_screen(title, as_json=options.json, quiet=options.quiet, color=options.color)
    try:
        return await block_followers(stage, options, screen)
    finally:
        screen.close()


@contextmanager
def _ended_like_ctrl_c() -> Iterator[None]:
    """Let SIGTERM and a closed terminal end the demo as Ctrl-C does, also where Ctrl-C itself is ignored."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
