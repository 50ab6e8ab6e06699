"""A queue of its own for a test: a real file, a real engine, a real socket, all in the test's folder."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import msgspec
import pytest

from shoestring import Config, Shoestring
from shoestring.api.server import Server
from shoestring.config import LimitsConfig, RunConfig, StoreConfig
from shoestring.engine.registry import Registry
from shoestring.service import Service

#: Nothing of the disk is set aside: a test's file holds a handful of tasks.
SMALL = StoreConfig(wal_prefill_mib=0, reserve_mib=0, ballast_mib=0)


def small_config(folder: Path, **settings: object) -> Config:
    """Return the configuration of a queue in `folder`."""
    plain = Config(database=folder / "q.db", runtime_dir=folder, store=SMALL, run=RunConfig(grace_s=0, threads=2))
    return msgspec.structs.replace(plain, **settings)


def limits(**values: int) -> LimitsConfig:
    return msgspec.structs.replace(LimitsConfig(), **values)


class Served:
    """A queue that answers on two sockets; may be stopped and started again."""

    def __init__(self, config: Config, registry: Registry) -> None:
        self.config = config
        self._registry = registry
        self.service: Service
        self.server: Server
        self.admin: Server

    async def start(self, *, frame_timeout_s: float = 30.0, away_s: float = 60.0) -> None:
        self.service = Service(config=self.config, registry=self._registry)
        await self.service.start()
        engine = self.service.engine
        self.server = Server(engine=engine, config=self.config, frame_timeout_s=frame_timeout_s, away_s=away_s)
        self.admin = Server(engine=engine, config=self.config, admin=True)
        await self.server.start(self.config.socket)
        await self.admin.start(self.config.admin_socket)

    async def stop(self) -> None:
        await self.service.stop(0)
        await self.server.close()
        await self.admin.close()


Serve = Callable[..., Awaitable[Served]]


@pytest.fixture
async def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """Start a queue for an app, or for an empty registry; it is stopped after the test."""
    monkeypatch.chdir(tmp_path)  # relative paths: a Unix socket's path has at most 107 bytes, pytest's are longer
    running: list[Served] = []

    async def start(
        app: Shoestring | None = None, *, frame_timeout_s: float = 30.0, away_s: float = 60.0, **settings: object
    ) -> Served:
        registry = app.registry if app is not None else Registry()
        config = app.config if app is not None else small_config(Path(), **settings)
        served = Served(config, registry)
        await served.start(frame_timeout_s=frame_timeout_s, away_s=away_s)
        running.append(served)
        return served

    yield start
    for served in running:
        await served.stop()
