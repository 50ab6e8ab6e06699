"""What the service manager is told."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from shoestring.notify import Notifier


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_the_manager_hears_ready_and_stopping_with_a_status(abstract: bool, tmp_path: Path) -> None:
    """systemd starts what depends on us at READY, and shows the status line to the operator."""
    name = f"@shoestring-test-{tmp_path.name}-{id(tmp_path)}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0"))
        manager.settimeout(5)
        notifier = Notifier({"NOTIFY_SOCKET": name})

        notifier.ready("generation 3")
        notifier.status("2 tasks pending")
        notifier.stopping("draining")

        assert [manager.recv(1_000) for _ in range(3)] == [
            b"READY=1\nSTATUS=generation 3",
            b"STATUS=2 tasks pending",
            b"STOPPING=1\nSTATUS=draining",
        ]


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_manager_nothing_is_sent(environ: dict[str, str]) -> None:
    """The daemon runs the same from a shell."""
    Notifier(environ).ready("up")


def test_a_manager_that_is_gone_stops_no_work(tmp_path: Path) -> None:
    """Telling how we are is not worth dying for."""
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready("up")
