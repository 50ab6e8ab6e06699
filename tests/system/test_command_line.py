"""The commands against a real daemon: what one types in a day."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from shoestring.cli.root import root
from shoestring.client import Client
from shoestring.core.model import JobSpec
from tests.system.conftest import Daemon, Ear, Start

APP = """
from jobs import tell
from shoestring import Discard, Shoestring

app = Shoestring()


@app.task(name="send_mail", queue="mail")
async def send_mail(to: str, copies: int = 1) -> None:
    tell(f"sent {to}")


@app.task(name="block", queue="block")
async def block(target: int) -> None:
    if target % 100 == 7:
        raise Discard(f"{target} is gone")
"""

Invoke = Callable[..., Result]


@pytest.fixture
def daemon(start: Start, tmp_path: Path) -> Daemon:
    (tmp_path / "mail.py").write_text(APP)
    started = start(config='app = "mail:app"')
    started.wait_ready()
    return started


@pytest.fixture
def invoke(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Invoke:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, stdin: str | None = None) -> Result:
        runner = CliRunner(catch_exceptions=False)
        result = runner.invoke(root, list(arguments), input=stdin, prog_name="shoestring")
        assert isinstance(result, Result)
        return result

    return run


def figures(result: Result) -> dict[str, object]:
    return msgspec.json.decode(result.stdout, type=dict[str, object])


def test_what_is_enqueued_runs_and_is_counted(daemon: Daemon, told: Ear, invoke: Invoke) -> None:
    """The first five minutes of every user."""
    one = invoke("enqueue", "send_mail", '{"to": "ada"}')
    ran = told.wait_for("sent")
    many = invoke("enqueue", "send_mail", "-", "--user", "alice", stdin='{"to":"bob"}\n{"to":"cy"}\n{"to":5}\n')
    rest = {told.wait_for("sent"), told.wait_for("sent")}
    status = figures(invoke("status", "--json"))

    assert (one.exit_code, one.stdout, ran) == (0, "Task 1 is stored.\n", "sent ada")
    assert (many.exit_code, rest) == (2, {"sent bob", "sent cy"})
    assert many.stdout.startswith("2 tasks are stored")
    assert many.stderr == "line 3: send_mail: argument $.to: expected str, got int\n"
    assert isinstance(status["ledger"], dict)
    assert (status["pid"], status["ledger"]["accepted"]) == (daemon.process.pid, 3)


@pytest.mark.usefixtures("daemon")
def test_a_jobs_failed_items_are_watched_found_and_run_again(invoke: Invoke, tmp_path: Path) -> None:
    """The way from "something failed" to "mended" is three commands."""
    job = asyncio.run(fan_out(tmp_path / "shoestring.sock", range(300)))

    watched = invoke("jobs", "watch", str(job), "--every", "0")
    found = msgspec.json.decode(invoke("discarded", "--json").stdout, type=list[dict[str, object]])
    read = invoke("discarded", str(found[0]["task_id"]))
    again = invoke("retry", "--handler", "block")

    assert watched.exit_code == 1
    assert watched.stdout.splitlines()[-1] == f"job {job}  done  297 of 300 done, 3 failed"
    assert {task["error"] for task in found} == {f"discarded: {n} is gone" for n in (7, 107, 207)}
    assert "Traceback" in read.stdout
    assert again.stdout == "3 tasks will run again.\n"


@pytest.mark.usefixtures("daemon")
def test_a_delayed_task_is_listed_and_can_be_cancelled(invoke: Invoke) -> None:
    """Second thoughts within the hour."""
    stored = figures(invoke("enqueue", "send_mail", '{"to": "ada"}', "--delay", "1h", "--json"))
    listed = msgspec.json.decode(invoke("tasks", "--state", "delayed", "--json").stdout, type=list[dict[str, object]])
    cancelled = invoke("cancel", str(stored["task_id"]))
    gone = invoke("tasks", str(stored["task_id"]))
    ledger = figures(invoke("status", "--json"))["ledger"]

    assert [task["task_id"] for task in listed] == [stored["task_id"]]
    assert cancelled.stdout == f"Task {stored['task_id']} (send_mail) is cancelled.\n"
    assert (gone.exit_code, gone.stdout) == (5, "")
    assert isinstance(ledger, dict)
    assert (ledger["accepted"], ledger["cancelled"]) == (1, 1)


def test_check_sees_the_daemon_and_misses_it_when_it_is_gone(daemon: Daemon, invoke: Invoke) -> None:
    """The same command is the deployment's gate and the monitor's probe."""
    running = invoke("check", "--json")
    daemon.process.send_signal(signal.SIGTERM)
    ended = daemon.end()
    away = invoke("check", "--json")

    assert (running.exit_code, ended, away.exit_code) == (0, 0, 3)
    assert [check["state"] for check in json.loads(away.stdout)["checks"]] == ["ok", "ok", "ok", "failed"]
    assert "reads back whole" in away.stdout
    assert invoke("status").exit_code == 3


@pytest.mark.usefixtures("daemon")
def test_a_second_daemon_is_refused_in_words_not_in_a_traceback(start: Start) -> None:
    """The message is all the operator needs; a traceback would bury it."""
    second = start(config='app = "mail:app"')

    assert second.end() == 4
    assert second.stderr.startswith("error: ")
    assert "Traceback" not in second.stderr


async def fan_out(socket: Path, items: range) -> int:
    async with Client(socket) as client:
        job = await client.open_job(JobSpec(handler="block"))
        await client.append_items(job, 0, msgspec.Raw(msgspec.json.encode(list(items))))
        await client.seal_job(job)
        return job
