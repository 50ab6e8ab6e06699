"""Nothing of a demo outlives it, however it ends. Real processes."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tomli

from shoestring.demo.social import Rules
from shoestring.demo.stage import ChildFailed, Stage

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs pidfd_open to wait for a grandchild")

HOLDS_A_STUB = """
import sys

from shoestring.demo.social import Rules
from shoestring.demo.stage import Stage

with Stage() as stage:
    stage.start_stub(Rules())
    print(stage.stub_pid, flush=True)
    sys.stdin.read()
"""


def ended(pidfd: int) -> bool:
    """Wait for the end of a process that is not our child; False if it still runs after 10 s."""
    readable, _, _ = select.select([pidfd], [], [], 10)
    os.close(pidfd)
    return bool(readable)


def remove_runtime(folder: Path) -> None:
    """Remove what a killed conductor leaves on tmpfs: only its configuration says where that is."""
    (config,) = folder.glob("shoestring-demo-*/shoestring.toml")
    shutil.rmtree(tomli.loads(config.read_text())["runtime_dir"])


def test_leaving_the_stage_ends_the_stub_and_removes_the_folders() -> None:
    """A demo that fills /tmp or keeps a port is a bad guest."""
    with Stage() as stage:
        address = stage.start_stub(Rules())
        pidfd = os.pidfd_open(stage.stub_pid)
        runtime = stage.socket.parent
        assert address.startswith("http://127.0.0.1:")
        assert runtime.is_dir()

    assert ended(pidfd)
    assert not stage.folder.exists()
    assert not runtime.exists()


def test_a_stub_dies_with_a_conductor_that_is_killed(tmp_path: Path) -> None:
    """Nobody runs the conductor's own clean-up after kill -9; the kernel must."""
    command, environment = [sys.executable, "-c", HOLDS_A_STUB], {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as conductor:
        assert conductor.stdout is not None
        pidfd = os.pidfd_open(int(conductor.stdout.readline()))
        conductor.kill()
        conductor.wait()

        assert ended(pidfd)
    remove_runtime(tmp_path)


def test_a_child_that_does_not_start_is_reported_with_what_it_said() -> None:
    """`the demo failed` alone would send people to read our code."""
    impossible = Rules(users=["ada", "ben"], followers=[1])
    with Stage() as stage, pytest.raises(ChildFailed, match=r"(?s)the stub ended by itself.*IndexError"):
        stage.start_stub(impossible)


def test_a_kept_folder_stays_and_holds_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--keep` is for looking into the database afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Stage(keep=True) as stage:
        pass

    assert stage.folder.parent == tmp_path
    assert f'database = "{stage.folder}/shoestring.db"' in stage.config.read_text()


def test_the_daemon_is_not_configured_by_the_environment_of_the_demo(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SHOESTRING_DATABASE of the user's own project would have the demo run on the user's own database."""
    monkeypatch.setenv("SHOESTRING_DATABASE", "/nonexistent/precious.db")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    with Stage() as stage:
        stage.start_stub(Rules())
        environment = Path(f"/proc/{stage.stub_pid}/environ").read_bytes()

    assert b"precious" not in environment
    assert b"NOTIFY_SOCKET" not in environment
    assert stage.lives == 0


def test_a_stopped_stub_ends_in_order() -> None:
    """SIGTERM must not look like a crash to whoever runs the stub alone."""
    command = [sys.executable, "-m", "shoestring.demo.stub"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as stub:
        assert stub.stdout is not None
        assert stub.stdout.readline().startswith("http://127.0.0.1:")
        stub.send_signal(signal.SIGTERM)

        assert stub.wait() == 0


def test_rules_that_make_no_sense_are_refused_in_words() -> None:
    """The stub is also run by hand."""
    command = [sys.executable, "-m", "shoestring.demo.stub", '{"user": ["ada"]}']
    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert done.returncode == 2
    assert "Object contains unknown field `user`" in done.stderr
