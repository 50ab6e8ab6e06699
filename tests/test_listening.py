"""Whose socket it is: ours, a service manager's for us, or somebody else's."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from shoestring.config import Config
from shoestring.core.errors import Conflict
from shoestring.listening import inherited, refuse_if_answered


def test_a_path_on_which_somebody_answers_is_not_taken(tmp_path: Path) -> None:
    """Its producers would enqueue into the wrong database without noticing."""
    path = tmp_path / "q.sock"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()

        with pytest.raises(Conflict, match=r"Another process listens on .*q\.sock"):
            refuse_if_answered(path)


def test_somebody_who_is_too_busy_to_answer_is_there_too(tmp_path: Path) -> None:
    """A full backlog refuses connections, but its owner is alive."""
    path = tmp_path / "q.sock"
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as waiting:
        other.bind(str(path))
        other.listen(0)
        waiting.connect(str(path))

        with pytest.raises(Conflict):
            refuse_if_answered(path)


def test_what_a_killed_daemon_left_may_be_replaced(tmp_path: Path) -> None:
    """A start after `kill -9` needs no cleaning up by hand."""
    path = tmp_path / "q.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    refuse_if_answered(path)
    refuse_if_answered(tmp_path / "never.sock")


#: Plays the service manager: binds, passes the socket as descriptor 3 and says so in the environment.
PASSED = """
import os, socket, sys
from pathlib import Path
from shoestring.config import Config
from shoestring.core.errors import ConfigError
from shoestring.listening import inherited
bound = socket.socket(socket.AF_UNIX)
bound.bind(sys.argv[1])
bound.listen()
os.dup2(bound.fileno(), 3)
environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1"}
try:
    found = inherited(Config(socket=Path(sys.argv[2]), database=Path("/srv/q.db")), environ, os.getpid())
except ConfigError as error:
    print(error)
else:
    print(*((str(path), one.fileno(), one.getblocking(), os.get_inheritable(3)) for path, one in found.items()))
"""


def passed(bound: Path, wanted: Path) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PASSED, str(bound), str(wanted)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return done.stdout.strip()


def test_a_socket_the_manager_bound_is_used_where_its_path_is_ours(tmp_path: Path) -> None:
    """With socket activation no connection is refused while the daemon restarts."""
    assert passed(tmp_path / "q.sock", tmp_path / "q.sock") == str((str(tmp_path / "q.sock"), 3, False, False))


def test_a_socket_the_manager_bound_elsewhere_is_refused(tmp_path: Path) -> None:
    """Producers read the path from our configuration, not from the unit file."""
    assert passed(tmp_path / "a.sock", tmp_path / "b.sock") == (
        f"The service manager passed a socket bound to '{tmp_path}/a.sock', but socket = {tmp_path}/b.sock (default)."
        " Make ListenStream= and socket the same path."
    )


@pytest.mark.parametrize("environ", [{}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}], ids=["none", "for another process"])
def test_descriptors_that_are_not_for_this_process_are_left_alone(environ: dict[str, str]) -> None:
    """The variables are inherited by children, the descriptors are not."""
    assert inherited(Config(), environ, os.getpid()) == {}
