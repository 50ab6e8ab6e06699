"""Watching a job until it is finished."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import msgspec
import pytest

from shoestring.core.model import JobState, Progress

from .conftest import Invoke, Record
from .records import NOW_MS, a_job

DONE = a_job(state=JobState.DONE, done=5_000, pending=0, version=11, finished_at_ms=NOW_MS)


def test_every_look_asks_for_what_is_newer(invoke: Invoke, recorded: Record) -> None:
    """The daemon answers when something changed, so that nobody polls."""
    looks = iter([a_job(version=10, done=2_000, pending=3_000), DONE])
    daemon = recorded({"job.progress": a_job(), "job.wait": lambda _: next(looks)})

    result = invoke("jobs", "watch", "3", "--every", "0")

    assert result.exit_code == 0
    assert result.stdout == (
        "job 3  sealed  1,200 of 5,000 done\njob 3  sealed  2,000 of 5,000 done\njob 3  done  5,000 of 5,000 done\n"
    )
    assert [params["version"] for verb, params in daemon.asked if verb == "job.wait"] == [9, 10]


def test_json_is_a_line_per_look(invoke: Invoke, recorded: Record) -> None:
    """A program reads progress as it comes."""
    recorded({"job.progress": a_job(), "job.wait": DONE})

    lines = invoke("jobs", "watch", "3", "--every", "0", "--json").stdout.splitlines()

    assert [msgspec.json.decode(line, type=Progress) for line in lines] == [a_job(), DONE]


@pytest.mark.parametrize(
    "last",
    [
        msgspec.structs.replace(DONE, failed=1, done=4_999),
        msgspec.structs.replace(DONE, state=JobState.CANCELLED),
        msgspec.structs.replace(DONE, error="the source failed: 503"),
    ],
    ids=["items failed", "cancelled", "source failed"],
)
def test_the_exit_code_says_whether_all_went_well(invoke: Invoke, recorded: Record, last: Progress) -> None:
    """`shoestring jobs watch 3 && publish` must not publish half."""
    recorded({"job.progress": last})

    assert invoke("jobs", "watch", "3").exit_code == 1


def test_a_source_that_failed_is_named(invoke: Invoke, recorded: Record) -> None:
    """A job of which no page was read looks like one with nothing to do: done, 0 of 0."""
    recorded({"job.progress": msgspec.structs.replace(DONE, error="source jobs.pages failed: NameError")})

    assert "source jobs.pages failed: NameError" in invoke("jobs", "watch", "3").stderr


def test_a_daemon_that_restarts_is_waited_for(invoke: Invoke, recorded: Record) -> None:
    """The job is in the database; a planned restart is no reason to stop looking."""

    def answers() -> Iterator[Progress]:
        yield a_job()
        yield DONE

    progress = answers()

    def die(_: dict[str, object]) -> object:
        raise ConnectionAbortedError

    recorded({"job.progress": lambda _: next(progress), "job.wait": die})

    result = invoke("jobs", "watch", "3", "--every", "0")

    assert result.exit_code == 0
    assert "The daemon is away. The job is safe in its database" in result.stderr
    assert result.stdout.endswith("job 3  done  5,000 of 5,000 done\n")


def test_ctrl_c_stops_watching_and_not_the_job(invoke: Invoke, recorded: Record) -> None:
    """Whoever leaves must not fear to have stopped the work."""

    def interrupted(_: dict[str, object]) -> object:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        return DONE

    daemon = recorded({"job.progress": a_job(), "job.wait": interrupted})

    result = invoke("jobs", "watch", "3", "--every", "0")

    assert result.exit_code == 130
    assert result.stderr == "Job 3 goes on; watch it again with: shoestring jobs watch 3\n"
    assert {verb for verb, _ in daemon.asked} == {"job.progress", "job.wait"}
