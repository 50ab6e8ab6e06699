"""One blocking conversation with the daemon: a frame out, its answer back.

`shoestring.client` is the client for programs: it reconnects, pipelines and runs a loop of its own. A command asks
one or two questions and ends, and loading asyncio for that would double its start-up time; so here is the plainest
client there can be, on the same `core.wire`.

The admin socket is taken where it may be opened, because it offers every verb. Otherwise the producers' socket
serves the verbs that are offered there.
"""

from __future__ import annotations

import errno
import os
import socket
from pathlib import Path
from typing import Final

import msgspec

from shoestring.core.errors import RemoteProtocolError, Unavailable, UnknownVerb
from shoestring.core.wire import Framer, Response, encode_request, parse_response

#: How long an answer may take, in seconds. A daemon flushing to a bad disk is slow, not gone.
ANSWER_S: Final = 30.0
#: A listing of 1,000 discarded tasks with their tracebacks has some 9 MB.
_FRAME_BYTES_MAX: Final = 256 << 20
_READ_BYTES: Final = 1 << 16
#: The longest path a Unix socket's address holds.
_PATH_BYTES_MAX: Final = 107


class Connection:
    """An open socket to the daemon. Close it, or use it in a `with`."""

    def __init__(self, opened: socket.socket, path: Path, admin_refused: str | None) -> None:
        self.path = path
        #: Why it is not the admin socket; None if it is.
        self.admin_refused = admin_refused
        self._socket = opened
        self._framer = Framer(_FRAME_BYTES_MAX)
        self._last_id = 0

    @classmethod
    def open(cls, admin: Path, producers: Path, *, start_with: str) -> Connection:
        """Connect to the first of both sockets that answers.

        Raises Unavailable naming the sockets and `start_with`, the command that starts the daemon.
        """
        try:
            return cls(_connect(admin), admin, None)
        except OSError as error:
            refused = error
        try:
            return cls(_connect(producers), producers, f"{admin}: {_reason(refused)}")
        except OSError as error:
            raise _unreachable((admin, refused), (producers, error), start_with) from error

    def call(self, method: str, params: object, *, answer_s: float = ANSWER_S) -> msgspec.Raw:
        """Return the result of one verb, as JSON; raise the error the daemon answered with.

        Raises Unavailable if the answer does not come: whether the daemon did what was asked is then unknown.
        """
        self._last_id += 1
        try:
            self._socket.settimeout(answer_s)
            self._socket.sendall(encode_request(self._last_id, method, params))
            response = self._answer()
        except TimeoutError as error:
            raise self._unanswered(f"did not answer `{method}` within {answer_s:g} s") from error
        except OSError as error:
            raise self._unanswered(f"closed the connection during `{method}` ({_reason(error)})") from error
        if isinstance(response.error, UnknownVerb) and self.admin_refused is not None:
            raise Unavailable(
                f"`{method}` is answered on the admin socket only, and that could not be opened ({self.admin_refused})."
                " Nothing was changed. Run this as the user the daemon runs as, or as root."
            ) from response.error
        if response.error is not None:
            raise response.error
        if response.result is None:
            raise RemoteProtocolError(f"The daemon answered `{method}` with neither a result nor an error.")
        return response.result

    def close(self) -> None:
        self._socket.close()

    def _answer(self) -> Response:
        while True:
            data = self._socket.recv(_READ_BYTES)
            if not data:
                raise ConnectionResetError(errno.ECONNRESET, "it ended or restarted")
            for line in self._framer.feed(data):
                response = parse_response(line)
                # An error without id is about the connection as a whole: it answers whatever was asked.
                if response.id in (self._last_id, None):
                    return response

    def _unanswered(self, what: str) -> Unavailable:
        return Unavailable(
            f"The daemon on {self.path} {what}. What was accepted before is safe; whether this last request was"
            " carried out is not known. Look with `shoestring status`, then ask again."
        )


def _connect(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > _PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"the path is longer than the {_PATH_BYTES_MAX} bytes a socket may have")
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.settimeout(ANSWER_S)
        opened.connect(os.fspath(path))
    except OSError:
        opened.close()
        raise
    return opened


def _unreachable(admin: tuple[Path, OSError], producers: tuple[Path, OSError], start_with: str) -> Unavailable:
    if producers[1].errno in (errno.EACCES, errno.EPERM):
        return Unavailable(
            f"You may not open the daemon's socket {producers[0]} (permission denied). Nothing was sent. Run this as"
            " the user the daemon runs as, or as a member of the socket's group."
        )
    same = admin[1].errno == producers[1].errno
    tried = f"{producers[0].absolute()} ({_reason(producers[1])})"
    tried = tried if same else f"{tried} nor on {admin[0].absolute()} ({_reason(admin[1])})"
    return Unavailable(
        f"No daemon answers on {tried}. Nothing was sent, and what was accepted before is safe in the database."
        f" Start it with: {start_with}"
    )


def _reason(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such socket"
    if error.errno == errno.ECONNREFUSED:
        return "nobody listens"
    return (error.strerror or str(error)).lower()
