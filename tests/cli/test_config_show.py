"""What is set, and who set it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli

from shoestring.config import Config

from .conftest import Invoke

FILE = """
database = "q.db"
[run]
slots = 7
[queues."mail box"]
concurrency = 3
[queues.block.limit]
capacity = 10
rate = 0.5
"""


def test_what_is_shown_is_a_file_that_means_the_same(invoke: Invoke, folder: Path) -> None:
    """One can save it, change a line and use it."""
    (folder / "shoestring.toml").write_text(FILE)
    before = Config.load()

    shown = invoke("config", "show").stdout
    (folder / "again.toml").write_text(shown)
    after = Config.load("again.toml")

    assert tomli.loads(shown)["run"]["slots"] == 7
    assert (after.run, after.queues, after.database) == (before.run, before.queues, before.database)


def test_the_origin_of_every_value_is_told(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ "But I set that" is answered by who overrode it."""
    (folder / "shoestring.toml").write_text(FILE)
    monkeypatch.setenv("SHOESTRING_RUN__THREADS", "3")

    result = invoke("config", "show", "--origin", "--json")

    shown = json.loads(result.stdout)
    assert shown["run.slots"] == {"value": 7, "origin": "shoestring.toml"}
    assert shown["run.threads"] == {"value": 3, "origin": "SHOESTRING_RUN__THREADS"}
    assert shown["run.grace_s"] == {"value": 20.0, "origin": "default"}
    assert shown['queues."mail box".concurrency'] == {"value": 3, "origin": "shoestring.toml"}
    assert "run.slots = 7" in (lines := invoke("config", "show", "--origin").stdout)
    assert {line.rpartition("# ")[2] for line in lines.splitlines()} == {
        "default",
        "shoestring.toml",
        "SHOESTRING_RUN__THREADS",
    }


def test_without_a_file_the_defaults_are_shown(invoke: Invoke) -> None:
    """The first look is before there is a file."""
    result = invoke("config")

    assert (result.exit_code, result.stderr) == (0, "# no file was found or named\n")
    assert "# app is not set\n" in result.stdout
    assert 'database = "shoestring.db"\n' in result.stdout
    assert json.loads(invoke("config", "--json").stdout)["log"] == {"level": "info", "format": "auto", "tasks": False}


@pytest.mark.parametrize("command", ["config", "status", "tasks", "check", "run"])
def test_a_config_that_cannot_be_used_ends_with_78(invoke: Invoke, folder: Path, command: str) -> None:
    """systemd must not restart what a restart cannot mend."""
    (folder / "shoestring.toml").write_text("[run]\nslotts = 7\n")

    result = invoke(command)

    assert result.exit_code == 78
    assert "shoestring.toml: unknown key run.slotts. Did you mean run.slots?" in result.output
