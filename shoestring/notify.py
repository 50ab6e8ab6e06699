"""Tell the service manager how the daemon is: the `sd_notify` protocol, which is one datagram of lines."""

from __future__ import annotations

import socket
from collections.abc import Mapping


class Notifier:
    """Sends to the socket a service manager named in the environment; does nothing where there is none."""

    __slots__ = ("_address",)

    def __init__(self, environ: Mapping[str, str]) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        # An "@" stands for the zero byte of the abstract namespace; other forms (vsock) are for virtual machines.
        self._address = "\0" + address[1:] if address.startswith("@") else address if address.startswith("/") else ""

    def ready(self, status: str) -> None:
        """Start-up is done: what was ordered after this service may start."""
        self._send("READY=1", f"STATUS={status}")

    def status(self, status: str) -> None:
        """Set the line that `systemctl status` shows."""
        self._send(f"STATUS={status}")

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", f"STATUS={status}")

    def _send(self, *lines: str) -> None:
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            try:
                sender.sendto("\n".join(lines).encode(), self._address)
            except OSError:  # the manager is restarting; it asks again by its own means, and work goes on
                return
