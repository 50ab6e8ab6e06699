"""Would it run, does it run, and which part is at fault."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from shoestring.store.schema import open_database

from .conftest import AsNobody, Invoke, Record
from .records import a_handler, a_status

APP = """
from shoestring import RetryPolicy, Shoestring, Timeout

app = Shoestring()


@app.task(name="send_mail", queue="mail", retry=RetryPolicy(max_attempts=10), timeout=Timeout(hard=30))
async def send_mail(to: str) -> None: ...
"""


@pytest.fixture
def app(folder: Path) -> Iterator[str]:
    """A module with an app in the current folder; forgotten afterwards."""
    (folder / "checked_jobs.py").write_text(APP)
    path = list(sys.path)
    yield "checked_jobs:app"
    sys.modules.pop("checked_jobs", None)
    sys.path[:] = path


def states(stdout: str) -> dict[str, str]:
    return {check["check"]: check["state"] for check in json.loads(stdout)["checks"]}


def test_a_running_installation_passes_and_lists_its_handlers(invoke: Invoke, recorded: Record, app: str) -> None:
    """The handlers are listed with what decides how their tasks run."""
    recorded({"status": a_status()})

    result = invoke("check", "--app", app)

    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout == (
        "config    ok       no file was found or named; 1 key set\n"
        "app       ok       checked_jobs:app: 1 handler, 0 sources\n"
        "                   HANDLER    QUEUE  TRIES  LIMIT  DURABILITY\n"
        "                   send_mail  mail      10   30 s  relaxed\n"
        "database  ok       /srv/app/shoestring.db: 12.4 MiB, 247 items pending\n"
        "daemon    ok       answers on shoestring.admin.sock: version 0.1.0, pid 812, generation 7, up 3 d 4 h\n"
    )


def test_json_has_every_check_and_handler(invoke: Invoke, recorded: Record, app: str) -> None:
    """A deployment script asks one thing: `.ok`, and on false which."""
    recorded({"status": a_status()})

    found = json.loads(invoke("check", "--app", app, "--json").stdout)

    assert found["ok"] is True
    assert [check["check"] for check in found["checks"]] == ["config", "app", "database", "daemon"]
    assert found["handlers"] == [
        {
            "handler": "send_mail",
            "queue": "mail",
            "max_attempts": 10,
            "soft_timeout_s": None,
            "hard_timeout_s": 30,
            "durability": "relaxed",
            "delivery": "at_least_once",
            "concurrency": None,
            "batch": False,
            "is_async": True,
        }
    ]


def test_before_a_start_the_daemon_is_not_missed(invoke: Invoke, app: str) -> None:
    """ExecStartPre= runs it when there cannot be a daemon yet."""
    result = invoke("check", "--offline", "--app", app, "--json")

    assert result.exit_code == 0
    assert states(result.stdout) == {"config": "ok", "app": "ok", "database": "ok", "daemon": "skipped"}


def test_the_exit_code_is_the_first_failures(invoke: Invoke) -> None:
    """No app and no daemon: the app is mended first."""
    result = invoke("check", "--json")

    assert result.exit_code == 78
    assert states(result.stdout) == {"config": "ok", "app": "failed", "database": "ok", "daemon": "failed"}


def test_no_daemon_alone_ends_with_3(invoke: Invoke, app: str) -> None:
    """A health check can tell "down" from "broken"."""
    assert invoke("check", "--app", app).exit_code == 3


def test_an_app_that_cannot_be_imported_says_where_it_broke(invoke: Invoke, app: str, folder: Path) -> None:
    """The traceback of an import is forty lines of importlib; the one that counts is the user's."""
    (folder / "checked_jobs.py").write_text("import does_not_exist\n")

    result = invoke("check", "--offline", "--app", app)

    assert result.exit_code == 78
    assert "No module named 'does_not_exist'" in result.stdout
    assert "checked_jobs.py, line 1" in result.stdout


def test_a_database_that_reads_back_passes(invoke: Invoke, app: str, folder: Path) -> None:
    """Without a daemon the file itself is looked at."""
    open_database(folder / "shoestring.db").close()

    result = invoke("check", "--offline", "--app", app)

    assert result.exit_code == 0
    assert "schema version 1, reads back whole" in result.stdout


def test_a_damaged_database_is_found_and_left_as_it_is(invoke: Invoke, app: str, folder: Path) -> None:
    """What is damaged is evidence and may be the only copy."""
    file = folder / "shoestring.db"
    file.write_bytes(b"SQLite format 3\0" + b"\xff" * 8_192)
    before = file.read_bytes()

    result = invoke("check", "--offline", "--app", app)

    assert (result.exit_code, file.read_bytes()) == (74, before)
    assert "Nothing was changed" in result.stdout


def test_a_daemon_that_runs_older_code_is_noticed(invoke: Invoke, recorded: Record, app: str) -> None:
    """Forgetting the restart is the commonest way for a new handler's tasks to wait."""
    recorded({"status": a_status(handlers=[a_handler("old")])})

    assert "It does not know send_mail: restart it" in invoke("check", "--app", app).stdout


def test_a_folder_that_is_not_there_is_told_as_the_daemon_tells_it(
    invoke: Invoke, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It said the folder could not be written, which sends people to its owner."""
    monkeypatch.setenv("SHOESTRING_DATABASE", "/nonexistent/q.db")
    result = invoke("check", "--offline", "--app", app)

    assert result.exit_code == 78
    assert "Create /nonexistent, or correct the path." in result.stdout


@pytest.mark.root
def test_a_folder_that_cannot_be_written_is_found(invoke: Invoke, app: str, as_nobody: AsNobody) -> None:
    """WAL needs files beside the database; the daemon could not even start."""
    with as_nobody():
        result = invoke("check", "--offline", "--app", app)

    assert result.exit_code == 74
    assert "cannot be written by this user" in result.stdout
