"""A folder to run commands in, and a daemon that answers what it was told to."""

from __future__ import annotations

import json
import os
import socketserver
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from shoestring.cli.root import root
from shoestring.core.errors import ShoestringError, UnknownVerb

from .records import NOW_MS

Answer = object | Callable[[dict[str, object]], object]
Invoke = Callable[..., Result]
AsNobody = Callable[[], AbstractContextManager[None]]
Record = Callable[..., "Recorded"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, with nothing of shoestring in the environment."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    # Relative paths: a Unix socket's path may have 107 bytes, and pytest's folders are longer.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    return tmp_path


@pytest.fixture
def as_nobody(folder: Path) -> AsNobody:
    """Be the user "nobody" for a while, in the same folder."""

    @contextmanager
    def being_nobody() -> Iterator[None]:
        for outer in (folder, *folder.parents[:2]):
            outer.chmod(0o755)
        os.seteuid(65_534)
        try:
            yield
        finally:
            os.seteuid(0)

    return being_nobody


@pytest.fixture
def invoke(folder: Path) -> Invoke:
    """Run a command in the folder; what it did not mean to raise fails the test."""

    def run(*arguments: str, stdin: str | bytes | None = None, color: bool = False) -> Result:
        runner = CliRunner(catch_exceptions=False)
        result = runner.invoke(
            root, list(arguments), input=stdin, color=color, prog_name="shoestring", obj=lambda: NOW_MS
        )
        assert isinstance(result, Result)
        return result

    return run


class Recorded(socketserver.ThreadingUnixStreamServer):
    """Answers each verb with what was recorded for it; a ShoestringError is answered as an error."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: str, answers: Mapping[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, dict[str, object]]] = []
        super().__init__(path, _Conversation)

    def answer(self, method: str, params: dict[str, object]) -> object:
        self.asked.append((method, params))
        answer = self.answers.get(method, UnknownVerb(f"no verb {method}"))
        return answer(params) if callable(answer) else answer


class _Conversation(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        try:
            self.converse()
        except (BrokenPipeError, ConnectionResetError):
            pass  # the command left without waiting

    def converse(self) -> None:
        assert isinstance(self.server, Recorded)
        for line in self.rfile:
            frame = json.loads(line)
            answer: object
            try:
                answer = self.server.answer(frame["method"], frame["params"])
            except ConnectionAbortedError:
                return  # the daemon "dies" before it answers
            body: dict[str, object] = {"jsonrpc": "2.0", "id": frame["id"]}
            if isinstance(answer, ShoestringError):
                body["error"] = {"code": answer.code, "message": str(answer), "data": answer.data()}
            else:
                body["result"] = answer
            self.wfile.write(msgspec.json.encode(body) + b"\n")


@pytest.fixture
def recorded(folder: Path) -> Iterator[Record]:
    """Start a daemon with recorded answers on the admin socket, or on the producers' with `admin=False`."""
    servers: list[Recorded] = []

    def start(answers: Mapping[str, Answer], *, admin: bool = True) -> Recorded:
        server = Recorded("shoestring.admin.sock" if admin else "shoestring.sock", {"hello": HELLO, **answers})
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


HELLO = {
    "version": "0.1.0",
    "generation": 7,
    "frame_bytes_max": 4 << 20,
    "payload_bytes_max": 65_536,
    "window": 64,
}
