"""Tasks, jobs and discarded tasks: listed, shown, empty, misspelt."""

from __future__ import annotations

import json

import msgspec
import pytest

from shoestring.core.model import JobState, TaskState, TaskView

from .conftest import Invoke, Record
from .records import NOW_MS, a_job, a_status, a_task

A_DISCARDED = a_task(
    7,
    state=TaskState.DISCARDED,
    attempt=5,
    error="SMTPException: 550 no such user\nsecond line",
    traceback='Traceback (most recent call last):\n  File "jobs.py", line 3, in send_mail\nSMTPException: 550\n',
    discarded_at_ms=NOW_MS - 3_600_000,
)


def test_tasks_are_listed_with_what_tells_them_apart(invoke: Invoke, recorded: Record) -> None:
    """Age and tries are what one scans for."""
    later = a_task(13, state=TaskState.DELAYED, user="", attempt=0, due_at_ms=NOW_MS + 300_000, items=50)
    recorded({"tasks": [a_task(), later]})

    result = invoke("tasks")

    assert result.stdout == (
        "ID  STATE    HANDLER    QUEUE  USER   ITEMS  TRIES        AGE  DUE\n"
        "12  ready    send_mail  mail   alice      1      1  4 min 5 s\n"
        "13  delayed  send_mail  mail   -         50      0  4 min 5 s  in 5 min\n"
    )
    assert result.stderr == ""


def test_filters_reach_the_daemon(invoke: Invoke, recorded: Record) -> None:
    """The daemon filters, because it holds millions of rows and the answer has a hundred."""
    daemon = recorded({"tasks": [a_task()]})

    invoke("tasks", "--queue", "mail", "--user", "alice", "--handler", "send_mail", "--state", "ready", "-n", "1")

    wanted = {"queue": "mail", "user": "alice", "handler": "send_mail", "state": "ready", "limit": 1}
    assert daemon.asked == [("tasks", wanted)]


def test_a_full_list_says_that_there_may_be_more(invoke: Invoke, recorded: Record) -> None:
    """Twenty of two million must not look like all."""
    recorded({"tasks": [a_task()]})

    assert "The first 1; there may be more." in invoke("tasks", "--limit", "1").stderr


def test_one_task_is_shown_in_full(invoke: Invoke, recorded: Record) -> None:
    """What ran, with what, how often, and where it broke."""
    daemon = recorded({"task.show": A_DISCARDED})

    result = invoke("tasks", "7")

    assert daemon.asked == [("task.show", {"task_id": 7})]
    assert result.stdout == (
        "task       7\n"
        "state      discarded\n"
        "handler    send_mail\n"
        "queue      mail\n"
        "user       alice\n"
        "priority   0\n"
        "attempts   5\n"
        "enqueued   2026-09-21 14:09:15 (4 min 5 s ago)\n"
        "discarded  2026-09-21 13:13:20 (1 h ago)\n"
        'arguments  {"to":"a@b.example"}\n'
        "error      SMTPException: 550 no such user\n"
        "           second line\n"
        "\n"
        "Traceback (most recent call last):\n"
        '  File "jobs.py", line 3, in send_mail\n'
        "SMTPException: 550\n"
    )
    assert result.stderr == "\nRun it again: shoestring retry 7\n"


def test_json_is_the_daemons_answer(invoke: Invoke, recorded: Record) -> None:
    """`jq` gets every field, also those the table leaves out."""
    recorded({"tasks": [A_DISCARDED], "discarded": [A_DISCARDED], "task.show": A_DISCARDED})

    for command in ("tasks", "discarded"):
        listed, shown = invoke(command, "--json").stdout, invoke(command, "7", "--json").stdout
        assert msgspec.json.decode(listed, type=list[TaskView]) == [A_DISCARDED]
        assert msgspec.json.decode(shown, type=TaskView) == A_DISCARDED


@pytest.mark.parametrize(
    ("arguments", "verb", "kind"),
    [
        (("tasks",), "tasks", "Nothing is stored: all work is done."),
        (("tasks", "--user", "bob"), "tasks", "No such task is stored."),
        (("jobs",), "jobs", "There is no job yet."),
        (("jobs", "--state", "open"), "jobs", "No job is open."),
        (("discarded",), "discarded", "Nothing is discarded. Good."),
    ],
)
def test_an_empty_list_says_what_that_means(
    invoke: Invoke, recorded: Record, arguments: tuple[str, ...], verb: str, kind: str
) -> None:
    """Silence could be a failure; a header without rows looks like one."""
    recorded({verb: []})

    result = invoke(*arguments)

    assert (result.exit_code, result.stdout) == (0, "")
    assert kind in result.stderr
    assert json.loads(invoke(*arguments, "--json").stdout) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tasks", "--queue", "mial"), "There is no queue 'mial'. Did you mean mail?"),
        (("tasks", "--handler", "send_mial"), "There is no handler 'send_mial'. Did you mean send_mail?"),
        (("discarded", "--handler", "zzz"), "There is no handler 'zzz'. The daemon knows send_mail."),
        (("retry", "--queue", "mial"), "There is no queue 'mial'. Did you mean mail?"),
    ],
)
def test_a_misspelt_name_is_not_an_empty_list(
    invoke: Invoke, recorded: Record, arguments: tuple[str, ...], message: str
) -> None:
    """ "Nothing there" for a queue that does not exist is a wrong answer."""
    recorded({"tasks": [], "discarded": [], "discarded.replay": {"replayed": 0}, "status": a_status()})

    result = invoke(*arguments)

    assert (result.exit_code, result.stdout) == (5, "")
    assert message in result.stderr


def test_discarded_tasks_are_listed_with_the_first_line_of_why(invoke: Invoke, recorded: Record) -> None:
    """The list is read to find out whether it is one reason or many."""
    recorded({"discarded": [A_DISCARDED]})

    result = invoke("discarded")

    assert result.stdout == (
        "ID  HANDLER    QUEUE  USER   TRIES  AGE  ERROR\n"
        " 7  send_mail  mail   alice      5  1 h  SMTPException: 550 no such user\n"
    )
    assert "run again: shoestring retry ID" in result.stderr


def test_what_is_not_discarded_is_not_shown_as_if(invoke: Invoke, recorded: Record) -> None:
    """The reader asked why it was given up; it was not."""
    recorded({"task.show": a_task(state=TaskState.RUNNING)})

    result = invoke("discarded", "12")

    assert (result.exit_code, result.stdout) == (5, "")
    assert "Task 12 is not discarded, it is running." in result.stderr


def test_jobs_are_listed_with_how_far_they_are(invoke: Invoke, recorded: Record) -> None:
    """A `+` behind the items says that more are coming."""
    recorded({"jobs": [a_job(), a_job(2, state=JobState.OPEN, total=None, accepted=900, failed=2, user="")]})

    assert invoke("jobs").stdout == (
        "ID  STATE   HANDLER  USER   ITEMS   DONE  FAILED  PENDING    AGE\n"
        " 3  sealed  block    alice  5,000  1,200       0    3,800  1 min\n"
        " 2  open    block    -       900+  1,200       2    3,800  1 min\n"
    )


def test_one_job_is_shown_in_items(invoke: Invoke, recorded: Record) -> None:
    """Progress counts items, because chunks are ours and items are the user's."""
    recorded({"job.progress": a_job(failed=3, state=JobState.DONE, finished_at_ms=NOW_MS)})

    result = invoke("jobs", "3")

    assert "items      5,000\ndone       1,200 (24%)\nfailed     3\n" in result.stdout
    assert "finished   2026-09-21 14:13:20 (took 1 min)" in result.stdout
    assert "3 failed items: shoestring discarded --handler block" in result.stderr
