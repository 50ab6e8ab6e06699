"""Where calls go: over the socket to a daemon, or straight into an engine in this process.

The app looks one up for the running event loop. `client.Client` is the one for the socket as it stands; here is the
protocol the two share, and the one for an engine.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Protocol

from shoestring.client import Stored
from shoestring.core.errors import ShoestringError
from shoestring.core.model import Entry, JobId, JobSpec, Progress

if TYPE_CHECKING:
    import msgspec

    from shoestring.engine.engine import Engine


class Gateway(Protocol):
    """What the app needs of the queue."""

    def submit(self, entry: Entry) -> Awaitable[Stored]: ...

    def submit_slice(self, entries: Sequence[Entry]) -> Awaitable[list[Stored | ShoestringError]]: ...

    async def open_job(self, spec: JobSpec) -> JobId: ...

    async def append_items(self, job_id: int, seq: int, items: msgspec.Raw) -> int: ...

    async def seal_job(self, job_id: int, error: str | None = None) -> Progress: ...

    async def progress(self, job_id: int) -> Progress: ...

    async def wait_job(self, job_id: int, *, version: int, timeout_s: float) -> Progress: ...

    async def cancel_job(self, job_id: int) -> Progress: ...


class EngineGateway:
    """Calls an engine that runs in this loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.submit_slice = engine.submit
        self.open_job = engine.open_job
        self.append_items = engine.append_items
        self.seal_job = engine.seal_job
        self.progress = engine.progress
        self.wait_job = engine.wait_job
        self.cancel_job = engine.cancel_job

    async def submit(self, entry: Entry) -> Stored:
        (stored,) = await self._engine.submit((entry,))
        if isinstance(stored, ShoestringError):
            raise stored
        return stored
