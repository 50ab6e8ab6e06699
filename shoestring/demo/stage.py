"""The folder and the processes of a demo: the stub and the daemon. Nothing of them outlives the stage.

Each child is a session of its own, so that Ctrl-C in the terminal reaches the conductor alone, which then ends the
children in order. The nets, each for what the one before cannot catch: `close()` when the `with` block is left, the
same from atexit, and the kernel's parent-death signal (`leash`) for a conductor killed with -9, after which only
the folders are left.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import msgspec

from shoestring.demo.social import Rules

#: How long the daemon may take from SIGTERM to its end. Its own grace for running calls is 20 s; the demo's calls
#: last milliseconds.
STOP_S_MAX: Final = 30.0

#: What of the environment would configure the daemon, or make it talk to a supervisor that is not its own.
_NOT_INHERITED: Final = ("SHOESTRING_", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_", "RUNTIME_DIRECTORY")

_CONFIG: Final = """\
# What `shoestring demo` ran with. Everything not said here is the default.
app = "shoestring.demo.jobs:app"
database = "{folder}/shoestring.db"
socket = "{runtime}/shoestring.sock"
admin_socket = "{runtime}/shoestring.admin.sock"
runtime_dir = "{runtime}"
"""


class ChildFailed(Exception):  # noqa: N818 - named as what happened
    """A process of the demo did not start, or ended by itself. The message has the end of what it said."""


class Stage:
    """A fresh folder with a configuration, and up to two children. Use it in a `with` block."""

    def __init__(self, *, keep: bool = False) -> None:
        #: Leave the folder with configuration, database and logs behind.
        self.keep = keep
        self.folder = Path(tempfile.mkdtemp(prefix="shoestring-demo-", dir=_on_disk()))
        # The register of running tasks belongs on tmpfs: on a disk its pages would be written back, and counted. The
        # sockets are there for their paths, which may have 107 characters: $TMPDIR may be longer.
        shared_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._runtime = Path(tempfile.mkdtemp(prefix="shoestring-demo-", dir=shared_memory))
        self.config = self.folder / "shoestring.toml"
        self.socket = self._runtime / "shoestring.sock"
        self.daemon: subprocess.Popen[str] | None = None
        self.lives = 0
        self._stub: subprocess.Popen[str] | None = None
        self._api_url = ""

    def __enter__(self) -> Self:
        atexit.register(self.close)
        self.config.write_text(_CONFIG.format(folder=_escaped(self.folder), runtime=_escaped(self._runtime)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def start_stub(self, rules: Rules) -> str:
        """Start the API and return its address. Waits until it listens."""
        argument = msgspec.json.encode(rules).decode()
        self._stub = self._spawn("stub", ["-m", "shoestring.demo.stub", argument], stdout=subprocess.PIPE)
        assert self._stub.stdout is not None
        self._api_url = self._stub.stdout.readline().strip()
        if not self._api_url:
            self._stub.wait()  # its end of the pipe is closed, so it is ending
        self.check()
        return self._api_url

    @property
    def stub_pid(self) -> int:
        assert self._stub is not None
        return self._stub.pid

    def start_daemon(self) -> None:
        """Start the daemon, or start it again. Does not wait: ask its socket."""
        self.lives += 1
        command = ["-m", "shoestring", "run", "--config", str(self.config)]
        self.daemon = self._spawn("daemon", command, stdout=None)

    def kill_daemon(self) -> None:
        """End the daemon with SIGKILL, as the out-of-memory killer would."""
        assert self.daemon is not None
        self.daemon.kill()
        self.daemon.wait()

    def stop_daemon(self) -> int:
        """End the daemon with SIGTERM and return its exit code; -9 if it had to be killed after 30 s."""
        assert self.daemon is not None
        self.daemon.terminate()
        try:
            return self.daemon.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self.daemon.kill()
            return self.daemon.wait()

    def check(self) -> None:
        """Raise ChildFailed if a process is not running that should be."""
        for name, child in (("stub", self._stub), ("daemon", self.daemon)):
            if child is not None and (code := child.poll()) is not None:
                said = self._log(name).read_text(errors="replace").strip().splitlines()[-12:]
                raise ChildFailed("\n  ".join([f"the {name} ended by itself with exit code {code}:", *said]))

    def close(self) -> None:
        """End what runs, at once, and remove the folders. Calling it again does nothing."""
        for child in (self.daemon, self._stub):
            if child is None:
                continue
            if child.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)  # each leads a session: this takes its children too
            child.wait()
            if child.stdout is not None:
                child.stdout.close()
        shutil.rmtree(self._runtime, ignore_errors=True)
        if not self.keep:
            shutil.rmtree(self.folder, ignore_errors=True)
        atexit.unregister(self.close)

    def _spawn(self, name: str, arguments: list[str], *, stdout: int | None) -> subprocess.Popen[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith(_NOT_INHERITED)}
        leash = [sys.executable, "-m", "shoestring.demo.leash", str(os.getpid())]
        with self._log(name).open("a") as log:
            return subprocess.Popen(
                [*leash, sys.executable, *arguments],
                env={**environment, "DEMO_API_URL": self._api_url},
                stdin=subprocess.DEVNULL,
                stdout=stdout or log,
                stderr=log,
                start_new_session=True,
                text=True,
            )

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _on_disk() -> str | None:
    """Return where the folder goes; None: the usual place. Not on a tmpfs if there is a disk: its writes are shown."""
    usual, on_disk = Path(tempfile.gettempdir()), Path("/var/tmp")
    if os.major(usual.stat().st_dev) == 0 and os.access(on_disk, os.W_OK) and os.major(on_disk.stat().st_dev) != 0:
        return str(on_disk)
    return None


def _escaped(path: Path) -> str:
    """Return `path` as it stands between the quotes of a TOML string, whose escapes are JSON's."""
    return msgspec.json.encode(str(path)).decode()[1:-1]
