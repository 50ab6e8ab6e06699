"""Where the daemon listens: sockets a service manager bound for us, and paths nobody else may answer on."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from shoestring.config import Config
from shoestring.core.errors import ConfigError, Conflict

#: The first descriptor a service manager passes; `sd_listen_fds(3)`.
FIRST_FD: Final = 3


def inherited(config: Config, environ: Mapping[str, str], pid: int) -> dict[Path, socket.socket]:
    """Return the listening sockets passed by socket activation, by the path each is bound to.

    A manager knows the paths from its own files, so each must be one of ours: raises ConfigError for one that is not,
    because producers would be looking elsewhere.
    """
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    wanted = {_real(path): path for path in (config.socket, config.admin_socket)}
    found: dict[Path, socket.socket] = {}
    for fd in range(FIRST_FD, FIRST_FD + int(environ.get("LISTEN_FDS", "0"))):
        os.set_inheritable(fd, False)
        listening = socket.socket(fileno=fd)
        name = listening.getsockname()
        path = wanted.get(_real(Path(name))) if listening.family is socket.AF_UNIX and isinstance(name, str) else None
        if path is None:
            listening.detach()
            raise ConfigError(
                f"The service manager passed a socket bound to {name!r}, but socket = {config.socket}"
                f" ({config.origin('socket')}). Make ListenStream= and socket the same path."
            )
        listening.setblocking(False)
        found[path] = listening
    return found


def refuse_if_answered(path: Path) -> None:
    """Raise Conflict if another process accepts connections at `path`: its clients must not be taken from it.

    What a killed daemon left there answers nothing, and may be replaced.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as caller:
        caller.settimeout(1.0)
        try:
            caller.connect(os.fspath(path))
        except (BlockingIOError, TimeoutError):
            pass  # somebody is there and busy: its backlog is full
        except OSError:  # nobody there, or no path: binding says what is wrong with it
            return
    raise Conflict(
        f"Another process listens on {path}, for another database. Nothing was changed."
        " Set another socket and admin_socket, or stop that process."
    )


def _real(path: Path) -> str:
    return os.path.realpath(path)
