"""Cancelling and running again."""

from __future__ import annotations

import json

import pytest

from shoestring.core.errors import Conflict, NotFound
from shoestring.core.model import JobState, TaskState

from .conftest import Invoke, Record
from .records import a_job, a_task


def test_cancelled_tasks_are_told_one_by_one(invoke: Invoke, recorded: Record) -> None:
    """A running one cannot be taken back, only asked to stop."""
    states = {12: TaskState.READY, 13: TaskState.RUNNING}
    daemon = recorded({"task.cancel": lambda p: a_task(p["task_id"], state=states[p["task_id"]])})

    result = invoke("cancel", "12", "13")

    assert [params for _, params in daemon.asked] == [{"task_id": 12}, {"task_id": 13}]
    assert result.stdout == "Task 12 (send_mail) is cancelled.\nTask 13 (send_mail) is asked to stop.\n"


def test_one_that_ended_does_not_save_the_others(invoke: Invoke, recorded: Record) -> None:
    """Between the list and the command tasks go on ending; the rest must be cancelled all the same."""
    answers = {12: a_task(), 13: NotFound("there is no task 13."), 14: a_task(14)}
    recorded({"task.cancel": lambda p: answers[p["task_id"]], "job.cancel": NotFound("there is no job 13.")})

    result = invoke("cancel", "12", "13", "14", "--json")

    assert result.exit_code == 5
    assert [task["task_id"] for task in json.loads(result.stdout)["tasks"]] == [12, 14]
    assert result.stderr == "There is no task or job 13 to cancel: it ended, or never was.\n"


@pytest.mark.parametrize("words", [("cancel",), ("jobs", "cancel")], ids=" ".join)
def test_a_cancelled_job_says_what_is_done_and_what_is_not(
    invoke: Invoke, recorded: Record, words: tuple[str, ...]
) -> None:
    """What was done stays done; the user has to know how much that is."""
    cancelled = a_job(state=JobState.CANCELLED, cancelled=3_700, pending=100)
    recorded({"task.cancel": NotFound("there is no task 3."), "job.cancel": cancelled})

    assert invoke(*words, "3").stdout == (
        "Job 3 (block) is cancelled: 1,200 of 5,000 done, 3,700 items cancelled, 100 still running.\n"
    )


def test_a_job_that_was_done_is_not_said_to_be_cancelled(invoke: Invoke, recorded: Record) -> None:
    """Whoever reads "is cancelled" runs the rest by hand."""
    recorded({"task.cancel": NotFound("there is no task 3."), "job.cancel": a_job(state=JobState.DONE)})

    assert invoke("cancel", "3").stdout == "Job 3 (block) was done already: nothing to cancel.\n"


def test_what_is_no_id_is_called_so(invoke: Invoke) -> None:
    """Click's own word for it is "not a valid integer range"."""
    assert "'x' is not a valid ID." in invoke("cancel", "x").stderr
    assert "An ID is a whole number." in invoke("tasks", "x").stderr


def test_a_daemon_that_goes_away_stops_the_list(invoke: Invoke, recorded: Record) -> None:
    """What was cancelled until then is told, in JSON too."""

    def cancel(params: dict[str, object]) -> object:
        if params["task_id"] != 12:
            raise ConnectionAbortedError
        return a_task()

    recorded({"task.cancel": cancel})

    result = invoke("cancel", "12", "13", "14", "--json")

    assert result.exit_code == 3
    assert [task["task_id"] for task in json.loads(result.stdout)["tasks"]] == [12]


def test_discarded_tasks_run_again_by_id_handler_queue_or_all(invoke: Invoke, recorded: Record) -> None:
    """After the cause is mended one wants all of a kind back, not each."""
    daemon = recorded({"discarded.replay": {"replayed": 2}})

    results = [
        invoke("retry", "12", "13", "12"),
        invoke("retry", "--handler", "send_mail", "--queue", "mail"),
        invoke("retry", "--all"),
    ]

    none: dict[str, object] = {"task_ids": [], "handler": None, "queue": None, "all": False}
    assert [params for _, params in daemon.asked] == [
        {**none, "task_ids": [12, 13]},
        {**none, "handler": "send_mail", "queue": "mail"},
        {**none, "all": True},
    ]
    assert {result.stdout for result in results} == {"2 tasks will run again.\n"}


@pytest.mark.parametrize("arguments", [(), ("12", "--all"), ("--all", "--queue", "mail"), ("12", "--handler", "x")])
def test_what_to_run_again_is_said_in_one_way(invoke: Invoke, arguments: tuple[str, ...]) -> None:
    """`retry` without a choice must not mean everything."""
    result = invoke("retry", *arguments)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "IDs, --handler and --queue, or --all" in result.stderr


def test_nothing_to_run_again_is_no_failure(invoke: Invoke, recorded: Record) -> None:
    """A script that mends and retries may come when nothing is broken."""
    recorded({"discarded.replay": {"replayed": 0}})

    result = invoke("retry", "--all")

    assert (result.exit_code, result.stdout) == (0, "")
    assert "nothing to run again" in result.stderr


def test_some_that_are_not_discarded_are_counted(invoke: Invoke, recorded: Record) -> None:
    """Three IDs and "2 tasks" would be left to the reader to notice."""
    recorded({"discarded.replay": {"replayed": 2}})

    result = invoke("retry", "12", "13", "14")

    assert (result.exit_code, result.stdout) == (5, "2 tasks will run again.\n")
    assert result.stderr == "1 of the 3 is not among the discarded.\n"


def test_the_daemons_refusal_ends_with_its_code(invoke: Invoke, recorded: Record) -> None:
    """A finished job cannot be cancelled; that is a conflict, not a missing job."""
    recorded({"job.cancel": Conflict("Job 3 is done. Nothing was changed.")})

    result = invoke("jobs", "cancel", "3")

    assert (result.exit_code, result.stderr) == (1, "Job 3 is done. Nothing was changed.\n")
