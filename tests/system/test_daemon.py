"""The daemon as its service manager sees it: a process that starts, owns, answers, stops and exits with a code."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import socket
import stat
import sys
from pathlib import Path

import msgspec

from tests.system.conftest import Ear, Start, call


def events(stderr: str) -> list[str]:
    return [json.loads(line)["event"] for line in stderr.splitlines()]


def test_it_says_ready_answers_stops_at_sigterm_and_leaves_nothing_behind(start: Start) -> None:
    """The whole life of a daemon under a service manager."""
    daemon = start()
    ready = daemon.wait_ready()
    pong = daemon.call("ping", {})
    modes = [
        stat.S_IMODE((daemon.folder / name).stat().st_mode) for name in ("shoestring.sock", "shoestring.admin.sock")
    ]

    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.end() == 0
    assert ready == f"READY=1\nSTATUS=generation 1, listening on {daemon.folder}/shoestring.sock"
    assert isinstance(pong["result"], dict)
    assert pong["result"]["generation"] == 1
    assert modes == [0o660, 0o600]
    assert daemon.manager.wait_for("STOPPING=1").startswith("STOPPING=1\nSTATUS=draining")
    assert not list(daemon.folder.glob("*.sock"))
    assert (daemon.folder / "shoestring.db.lock").read_bytes() == b""
    assert [events(daemon.stderr)[0], events(daemon.stderr)[-1]] == ["daemon_started", "daemon_stopped"]


def test_a_second_daemon_on_the_same_database_exits_4_and_names_the_first(start: Start) -> None:
    """The second must neither run the tasks of the first nor disturb it."""
    first = start()
    first.wait_ready()

    second = start()

    assert second.end() == 4
    assert f"is owned by process {first.process.pid}, running since" in second.stderr
    assert "result" in first.call("ping", {})


def test_after_kill_9_it_starts_again_by_itself(start: Start) -> None:
    """The lock, the sockets and the generation of a dead daemon are in nobody's way."""
    first = start()
    first.wait_ready()
    first.process.kill()
    first.end()

    second = start()

    assert "generation 2" in second.wait_ready()
    assert "result" in second.call("ping", {})


def test_a_disk_that_refuses_a_write_ends_it_with_74_and_loses_nothing(start: Start, told: Ear) -> None:
    """To go on after a failed write would be to answer for what is not on the disk."""
    daemon = start()
    daemon.wait_ready()
    daemon.call("enqueue", {"tasks": [["say", {"what": "later"}, {"delay_ms": 3_600_000}]]})
    # From now on every write to a regular file fails, as on a device that is gone.
    resource.prlimit(daemon.process.pid, resource.RLIMIT_FSIZE, (0, 0))

    with contextlib.suppress(msgspec.DecodeError, ConnectionError):  # the connection may end before, or with, an answer
        daemon.call("enqueue", {"tasks": [["say", {"what": "lost"}]]})

    assert daemon.end() == 74
    failure = json.loads(daemon.stderr.splitlines()[1])
    assert (failure["event"], "StorageError" in failure["error"]) == ("daemon_failed", True)
    again = start()
    again.wait_ready()
    status = again.call("status", {})["result"]
    assert isinstance(status, dict)
    assert status["delayed"] == 1


def test_a_handler_that_raises_keyboard_interrupt_does_not_leave_a_half_dead_process(start: Start, told: Ear) -> None:
    """It goes through the loop. The process stayed without a lock or a log, waiting for the database's threads."""
    daemon = start()
    daemon.wait_ready()

    with contextlib.suppress(msgspec.DecodeError, ConnectionError):  # it may end before, or with, the answer
        daemon.call("enqueue", {"tasks": [["interrupt", {}]]})

    assert daemon.end() == 1
    assert "daemon_failed" in events(daemon.stderr)


def test_burst_ends_when_nothing_is_left(start: Start, told: Ear) -> None:
    """A cron job or a test run wants an end, and an exit code."""
    first = start()
    first.wait_ready()
    first.call("enqueue", {"tasks": [["hang", {}]]})
    told.wait_for("hanging")
    first.call("enqueue", {"tasks": [["say", {"what": "done"}]]})
    first.process.kill()
    first.end()
    (first.folder / "jobs.py").write_text(
        (first.folder / "jobs.py").read_text().replace(".Event().wait()", ".sleep(0)")
    )

    burst = start("--burst")

    assert burst.end() == 0
    assert told.wait_for("done") == "done"
    assert "daemon_stopped" in events(burst.stderr)


def test_the_second_signal_cuts_the_drain_short(start: Start, told: Ear) -> None:
    """Whoever presses Ctrl-C twice does not want to wait for the grace; the task is not lost by it."""
    daemon = start(config='app = "jobs:app"\n[run]\ngrace_s = 3600')
    daemon.wait_ready()
    daemon.call("enqueue", {"tasks": [["hang", {}]]})
    told.wait_for("hanging")

    daemon.process.send_signal(signal.SIGINT)
    daemon.manager.wait_for("STOPPING=1")
    daemon.process.send_signal(signal.SIGINT)

    assert daemon.end() == 0
    assert "stop_hurried" in events(daemon.stderr)
    again = start()
    again.wait_ready()
    assert told.wait_for("hanging") == "hanging"


def test_a_thread_that_never_ends_does_not_keep_the_process_alive(start: Start, told: Ear) -> None:
    """Python waits for its threads at exit; the service manager would have to kill the daemon at every restart."""
    daemon = start()
    daemon.wait_ready()
    daemon.call("enqueue", {"tasks": [["leave_thread", {}]]})
    told.wait_for("left")

    daemon.process.send_signal(signal.SIGTERM)

    assert daemon.end() == 0
    assert json.loads(daemon.stderr.splitlines()[-1])["threads"] == ["left"]


def test_a_socket_that_was_passed_is_answered_on_and_left_in_place(start: Start, tmp_path: Path) -> None:
    """Under socket activation producers that came before the daemon are served, and none is refused after it."""
    path = tmp_path / "shoestring.sock"
    with socket.socket(socket.AF_UNIX) as bound, socket.socket(socket.AF_UNIX) as early:
        bound.bind(str(path))
        bound.listen(16)
        early.connect(str(path))
        early.sendall(b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{}}\n')
        program = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3); os.set_inheritable(3, True);"
            "os.environ.update(LISTEN_FDS='1', LISTEN_PID=str(os.getpid()));"
            "os.execv(sys.executable, [sys.executable, '-m', 'shoestring', 'run'])"
        )
        copy = bound.dup()
        copy.set_inheritable(True)

        daemon = start(command=(sys.executable, "-c", program, str(copy.fileno())), pass_fds=(copy.fileno(),))

        daemon.wait_ready()
        with early.makefile("rb") as answers:
            assert b'"generation":1' in answers.readline()
        copy.close()
        daemon.process.send_signal(signal.SIGTERM)
        assert daemon.end() == 0
        assert path.is_socket()


def test_without_an_app_it_exits_78_and_says_what_to_write(start: Start) -> None:
    """78 tells the service manager that another start will not help."""
    daemon = start(config="")

    assert daemon.end() == 78
    assert 'Set app = "module:attribute" in shoestring.toml' in daemon.stderr


def test_a_file_in_the_sockets_place_is_left_alone(start: Start, tmp_path: Path) -> None:
    """A typo in `socket` must not cost the file it happens to name."""
    (tmp_path / "shoestring.sock").write_text("precious")

    daemon = start()

    assert daemon.end() == 78
    assert "is not a socket" in daemon.stderr
    assert (tmp_path / "shoestring.sock").read_text() == "precious"


def test_a_socket_path_the_kernel_cannot_hold_is_a_clear_error(start: Start) -> None:
    """The kernel's own message, `Invalid argument`, has cost people hours."""
    daemon = start(config=f'app = "jobs:app"\nsocket = "{"x" * 120}.sock"')

    assert daemon.end() == 78
    assert "bytes long" in daemon.stderr


def test_another_process_on_the_socket_is_not_robbed_of_it(start: Start, tmp_path: Path) -> None:
    """Two daemons on two databases, one socket: whose producers would go where?"""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "shoestring.sock"))
        other.listen()

        daemon = start()

        assert daemon.end() == 1
        assert "Another process listens on" in daemon.stderr


def test_a_task_enqueued_on_the_socket_is_run(start: Start, told: Ear) -> None:
    """The one thing it is all for, through every layer."""
    daemon = start()
    daemon.wait_ready()

    answer = call(daemon.folder / "shoestring.sock", "enqueue", {"tasks": [["say", {"what": "hello"}]]})

    assert told.wait_for("hello") == "hello"
    assert isinstance(answer["result"], dict)
    assert answer["result"]["count"] == 1
