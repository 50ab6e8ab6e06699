"""Which socket a command talks to, and what it says when there is none."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shoestring.core.errors import NotFound

from .conftest import AsNobody, Invoke, Record
from .records import a_status


def test_without_a_daemon_the_socket_and_the_command_that_starts_it_are_named(invoke: Invoke, folder: Path) -> None:
    """The commonest error of all has to be one a newcomer can act on."""
    result = invoke("status")

    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        f"error: No daemon answers on {folder}/shoestring.sock (no such socket). Nothing was sent, and what was"
        " accepted before is safe in the database. Start it with: shoestring run\n"
    )


def test_the_command_that_starts_it_reads_the_same_configuration(invoke: Invoke, folder: Path) -> None:
    """Copied as it stands, it must start the daemon this command was looking for."""
    (folder / "my conf.toml").write_text("")

    assert invoke("status", "--config", "my conf.toml").stderr.endswith(
        "Start it with: shoestring run --config 'my conf.toml'\n"
    )


def test_a_socket_left_behind_is_not_a_daemon(invoke: Invoke, folder: Path) -> None:
    """`kill -9` leaves the file; connecting to it is refused."""
    with socket.socket(socket.AF_UNIX) as left:
        left.bind("shoestring.sock")

    result = invoke("status")

    assert result.exit_code == 3
    assert f"{folder}/shoestring.sock (nobody listens) nor on {folder}/shoestring.admin.sock" in result.stderr


def test_a_path_no_socket_can_have_is_said(invoke: Invoke, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's limit of 107 bytes surprises in deep folders."""
    monkeypatch.setenv("SHOESTRING_DATABASE", "d" * 120 + ".db")

    result = invoke("status")

    assert result.exit_code == 3
    assert "longer than the 107 bytes a socket may have" in result.stderr


def test_producers_may_ask_what_their_socket_offers(invoke: Invoke, recorded: Record) -> None:
    """A web application's user has no business on the admin socket, but may look."""
    recorded({"status": a_status()}, admin=False)

    assert invoke("status").exit_code == 0


def test_what_only_the_admin_socket_offers_says_so(invoke: Invoke, recorded: Record) -> None:
    """ "Unknown verb" would send the reader looking for a version mismatch."""
    recorded({}, admin=False)

    result = invoke("tasks")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "`tasks` is answered on the admin socket only" in result.stderr
    assert "shoestring.admin.sock: no such socket" in result.stderr
    assert "as root" in result.stderr


def test_a_daemon_that_ends_before_it_answers_leaves_the_question_open(invoke: Invoke, recorded: Record) -> None:
    """Whether a cancel was carried out decides what its user does next; nobody may claim to know."""

    def die(_: dict[str, object]) -> object:
        raise ConnectionAbortedError

    recorded({"task.cancel": die})

    result = invoke("cancel", "12")

    assert result.exit_code == 3
    assert "closed the connection during `task.cancel`" in result.stderr
    assert "whether this last request was carried out is not known" in result.stderr


def test_the_daemons_own_error_is_shown_with_its_exit_code(invoke: Invoke, recorded: Record) -> None:
    """The daemon knows best what is wrong; its words and its code reach the shell."""
    recorded({"task.show": NotFound("There is no task 12. It may have been completed.")})

    result = invoke("tasks", "12")

    assert (result.exit_code, result.stdout) == (5, "")
    assert result.stderr == "error: There is no task 12. It may have been completed.\n"


@pytest.mark.root
def test_a_socket_one_may_not_open_says_who_may(invoke: Invoke, recorded: Record, as_nobody: AsNobody) -> None:
    """The daemon is there; telling the user to start it would be wrong."""
    recorded({"status": a_status()})
    recorded({"status": a_status()}, admin=False)
    for path in ("shoestring.sock", "shoestring.admin.sock"):
        os.chmod(path, 0o600)

    with as_nobody():
        result = invoke("status")

    assert (result.exit_code, result.stdout) == (3, "")
    assert "You may not open the daemon's socket shoestring.sock (permission denied)" in result.stderr
    assert "as the user the daemon runs as" in result.stderr
