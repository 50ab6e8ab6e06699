"""The Unix sockets the daemon is reached at: who may connect, how many, and how listening begins and ends.

At no moment is a path open to more people than it should be, whatever the umask. What another daemon left behind is
replaced; that none is alive is known from the lock on the database, which is taken first. The path is bound in its
place and not renamed into it: the name a socket was bound under stays with it for its life, and `ss`, `lsof` and a
later owner of the descriptor would see the wrong one.
"""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path
from typing import Final

from shoestring.api.calls import Calls
from shoestring.api.commands import Daemon, verbs
from shoestring.api.connection import Connection
from shoestring.api.feeds import AWAY_S, Feeds
from shoestring.api.memory import WINDOW, Memories
from shoestring.config import Config
from shoestring.core.errors import ConfigError, Refused
from shoestring.engine.engine import Engine

#: Connections the kernel holds for us while the loop is busy or the daemon restarts. With a full queue a client's
#: connect "succeeds" and its first send fails (3 of 6 tries at a backlog of 5).
BACKLOG: Final = 1_024
#: What fits `sockaddr_un.sun_path` beside its final zero.
PATH_BYTES_MAX: Final = 107
#: A frame goes through a Unix socket in milliseconds; what takes this long is a peer that has stopped.
FRAME_TIMEOUT_S: Final = 30.0
PRODUCERS_MODE: Final = 0o660
ADMIN_MODE: Final = 0o600


class Server:
    """Answers the protocol's verbs on one listening socket."""

    def __init__(
        self,
        *,
        engine: Engine,
        config: Config,
        admin: bool = False,
        frame_timeout_s: float = FRAME_TIMEOUT_S,
        away_s: float = AWAY_S,
    ) -> None:
        self._engine = engine
        self._config = config
        self._admin = admin
        self._frame_timeout_s = frame_timeout_s
        self._verbs = verbs(admin=admin)
        self._memories = Memories()
        self._feeds = Feeds(engine, away_s=away_s)
        self._connections: set[Connection] = set()
        self._listener: asyncio.Server | None = None
        self._path: Path | None = None
        self._inode: int | None = None
        self._daemon: Daemon | None = None
        self._all_closed = asyncio.Event()
        self._all_closed.set()

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, where: Path | str | socket.socket) -> None:
        """Listen at a path, or on a socket that is bound already (systemd's, or the one of the life before).

        Raises ConfigError if the path cannot be used, or something that is not a socket is there.
        """
        if not self._admin:
            self._feeds.adopt(self._engine.streamed_jobs())
        status = self._engine.status()
        self._daemon = Daemon(
            engine=self._engine,
            version=status.version,
            generation=status.generation,
            frame_bytes_max=self._config.limits.frame_bytes_max,
            payload_bytes_max=self._config.limits.payload_bytes_max,
            window=WINDOW,
            frame_timeout_s=self._frame_timeout_s,
        )
        loop = asyncio.get_running_loop()
        if isinstance(where, socket.socket):
            self._listener = await loop.create_unix_server(self._connection, sock=where, backlog=BACKLOG)
            return
        path = Path(where)
        listening = _bind(path, ADMIN_MODE if self._admin else PRODUCERS_MODE)
        self._path, self._inode = path, _inode(path)
        self._listener = await loop.create_unix_server(self._connection, sock=listening, backlog=BACKLOG)

    async def close(self, timeout_s: float = 5.0) -> None:
        """Stop accepting, answer what has been taken on, close. What is not answered in time is cut off."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        self._remove_path()
        for connection in list(self._connections):
            connection.finish()
        try:
            await asyncio.wait_for(self._all_closed.wait(), timeout_s)
        except TimeoutError:
            for connection in list(self._connections):
                connection.abort()
            await self._all_closed.wait()
        self._feeds.close()

    def _connection(self) -> Connection:
        assert self._daemon is not None
        return Connection(self._daemon, self._calls, self._accepted, self._closed)

    def _calls(self, connection: Connection, uid: int) -> Calls:
        assert self._daemon is not None
        return Calls(self._daemon, self._verbs, self._memories, self._feeds, uid, connection.send, connection.settled)

    def _accepted(self, connection: Connection) -> None:
        self._connections.add(connection)
        self._all_closed.clear()
        most = self._config.limits.connections_max
        if sum(not other.is_refused for other in self._connections) > most:
            connection.refuse(
                Refused(
                    f"{most} connections are open, the most this daemon takes; nothing was read from this one. "
                    "Share one connection per process, or raise limits.connections_max",
                    retry_after=1.0,
                )
            )

    def _closed(self, connection: Connection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._all_closed.set()

    def _remove_path(self) -> None:
        """Remove the socket's path, unless a daemon that came after has put its own there."""
        if self._path is None:
            return
        try:
            if _inode(self._path) == self._inode:
                self._path.unlink()
        except FileNotFoundError:
            pass
        self._path = None


def _bind(path: Path, mode: int) -> socket.socket:
    """Return a socket bound at `path`, in the place of one that a daemon before this one left."""
    if len(os.fsencode(path)) > PATH_BYTES_MAX:
        raise ConfigError(
            f"the socket's path {path} is {len(os.fsencode(path))} bytes long; a Unix socket's path takes at most "
            f"{PATH_BYTES_MAX} here. Set `socket` and `admin_socket` to shorter paths"
        )
    _refuse_what_is_no_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # The kernel makes the path with the descriptor's mode less the umask: first never wider, then as meant.
        os.fchmod(listening.fileno(), mode)
        path.unlink(missing_ok=True)
        listening.bind(os.fspath(path))
        path.chmod(mode)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen at {path}: {error.strerror or error}. Its folder must exist and be writable by the user "
            "the daemon runs as"
        ) from error
    return listening


def _inode(path: Path) -> int:
    return path.lstat().st_ino


def _refuse_what_is_no_socket(path: Path) -> None:
    try:
        found = path.lstat()
    except OSError:
        return  # absent, or not to be reached: binding says which
    if not stat.S_ISSOCK(found.st_mode):
        raise ConfigError(f"{path} exists and is not a socket; it is left alone. Remove it or set another path")
