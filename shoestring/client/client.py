"""The verbs of the protocol as methods.

`Client` speaks for programs that know handlers by name: the command line, benches, other tools. Programs that hold
the app use its handlers, which check their arguments and end up here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

import msgspec

from shoestring.client.dialing import Dialer, Greeting
from shoestring.client.link import Link
from shoestring.client.pipeline import Pipeline, Stored, slices
from shoestring.core.errors import ShoestringError
from shoestring.core.model import Entry, JobId, JobSpec, JobState, Options, Progress, Status, TaskState, TaskView

T = TypeVar("T")

#: How long one `job.wait` is asked to wait; the daemon keeps one for 60 s at most.
WAIT_S: Final = 50.0

_DECODERS: Final[dict[object, msgspec.json.Decoder[Any]]] = {}


class Pong(msgspec.Struct, frozen=True):
    version: str
    generation: int


class _Opened(msgspec.Struct, frozen=True):
    job_id: int


class _Accepted(msgspec.Struct, frozen=True):
    accepted: int


class _Replayed(msgspec.Struct, frozen=True):
    replayed: int


class Client:
    """One connection to the daemon at `socket`, made when it is first needed and made again when it is lost.

    A daemon that is not there at first raises Unavailable after `connect_timeout` seconds (at once, by default); one
    that was reached and went away is given `reconnect_timeout` seconds to come back, and what it had not answered
    is sent again. Within one life of the daemon nothing is done twice by that. Across a restart a change is done
    at least once: a task whose answer was lost may be stored twice, unless it is enqueued with `unique=`.

    A client belongs to the event loop it is first used in.
    """

    def __init__(self, socket: Path | str, *, connect_timeout: float = 0.0, reconnect_timeout: float = 10.0) -> None:
        self.socket = Path(socket)
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = reconnect_timeout
        self._link_made: Link | None = None
        self._pipeline_made: Pipeline | None = None
        self._keeper: AsyncGenerator[None, None] | None = None

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def connect(self) -> Greeting:
        """Reach the daemon now; return what it says of itself. Raises Unavailable."""
        await self._link.reach()
        greeting = self._link.greeting
        assert greeting is not None
        return greeting

    async def aclose(self) -> None:
        """Close the connection. What was not answered fails with Unavailable; it may have been done."""
        if self._link_made is not None:
            await self._link_made.aclose()
            self._link_made = self._pipeline_made = None

    # -- Tasks -------------------------------------------------------------------------------------------------

    def submit(self, entry: Entry) -> asyncio.Future[Stored]:
        """Enqueue one entry; what is submitted in one turn of the loop shares a frame and a commit.

        A cancelled wait does not take the task back.
        """
        return self._pipeline.submit(entry)

    async def submit_many(self, entries: Sequence[Entry]) -> list[Stored | ShoestringError]:
        """Enqueue entries; each slice (5,000 or 1 MiB of bodies) is one frame and one commit.

        Returns what became of each, in order: its id, the task that holds its `unique` key, or its error.
        """
        results: list[Stored | ShoestringError] = []
        for part in slices(entries):
            results += await self._pipeline.submit_many(part)
        return results

    def submit_slice(self, entries: Sequence[Entry]) -> asyncio.Future[list[Stored | ShoestringError]]:
        """Enqueue one of the `slices` without waiting, so that the next can be made meanwhile."""
        return asyncio.ensure_future(self._pipeline.submit_many(entries))

    async def enqueue(
        self, handler: str, arguments: Mapping[str, object] | None = None, options: Options | None = None
    ) -> Stored:
        """Enqueue a task for a handler known by its name only; the daemon checks the arguments."""
        return await self.submit(Entry(handler, msgspec.Raw(msgspec.json.encode(arguments or {})), options))

    async def task(self, task_id: int) -> TaskView:
        return await self._call("task.show", {"task_id": task_id}, TaskView)

    async def cancel_task(self, task_id: int) -> TaskView:
        return await self._call("task.cancel", {"task_id": task_id}, TaskView, changes=True)

    async def tasks(
        self,
        *,
        queue: str | None = None,
        user: str | None = None,
        handler: str | None = None,
        state: TaskState | None = None,
        limit: int = 100,
    ) -> list[TaskView]:
        """List tasks; admin socket only, as are `jobs`, `discarded` and `replay`."""
        params = {"queue": queue, "user": user, "handler": handler, "state": state, "limit": limit}
        return await self._call("tasks", params, list[TaskView])

    async def discarded(
        self, *, handler: str | None = None, queue: str | None = None, limit: int = 100
    ) -> list[TaskView]:
        return await self._call("discarded", {"handler": handler, "queue": queue, "limit": limit}, list[TaskView])

    async def replay(
        self,
        *,
        task_ids: Sequence[int] = (),
        handler: str | None = None,
        queue: str | None = None,
        all: bool = False,
    ) -> int:
        """Put discarded tasks back into their queues; return how many."""
        params = {"task_ids": list(task_ids), "handler": handler, "queue": queue, "all": all}
        return (await self._call("discarded.replay", params, _Replayed, changes=True)).replayed

    # -- Jobs --------------------------------------------------------------------------------------------------

    async def open_job(self, spec: JobSpec) -> JobId:
        return JobId((await self._call("job.open", spec, _Opened, changes=True)).job_id)

    async def append_items(self, job_id: int, seq: int, items: msgspec.Raw) -> int:
        """Append a JSON array of items to an open job; return how many it has taken so far.

        `seq` counts the appends of the job from 0; one that comes again is ignored.
        """
        params = {"job_id": job_id, "seq": seq, "items": items}
        return (await self._call("job.append", params, _Accepted, changes=True)).accepted

    async def seal_job(self, job_id: int, error: str | None = None) -> Progress:
        """Say that all items are there or, with `error`, why they are not."""
        return await self._call("job.seal", {"job_id": job_id, "error": error}, Progress, changes=True)

    async def progress(self, job_id: int) -> Progress:
        return await self._call("job.progress", {"job_id": job_id}, Progress)

    async def wait_job(self, job_id: int, *, version: int, timeout_s: float = WAIT_S) -> Progress:
        """Return the job's progress once its version is above `version`, it is finished, or the time is up.

        The daemon waits no longer than 60 s.
        """
        params = {"job_id": job_id, "version": version, "timeout_s": timeout_s}
        return await self._call("job.wait", params, Progress)

    async def cancel_job(self, job_id: int) -> Progress:
        return await self._call("job.cancel", {"job_id": job_id}, Progress, changes=True)

    async def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Progress]:
        return await self._call("jobs", {"state": state, "limit": limit}, list[Progress])

    # -- The daemon --------------------------------------------------------------------------------------------

    async def status(self) -> Status:
        return await self._call("status", {}, Status)

    async def ping(self) -> Pong:
        return await self._call("ping", {}, Pong)

    async def _call(self, method: str, params: object, answer: type[T], *, changes: bool = False) -> T:
        raw = await self._link.request(method, params, changes=changes)
        return _decoder(answer).decode(raw)

    @property
    def _link(self) -> Link:
        if self._link_made is None:
            dialer = Dialer(
                self.socket, connect_timeout=self._connect_timeout, reconnect_timeout=self._reconnect_timeout
            )
            self._link_made = Link(dialer, turned_away_timeout=self._reconnect_timeout)
            self._keeper = _closed_with_loop(self._link_made)
            try:
                self._keeper.__anext__().send(None)
            except StopIteration:
                pass  # it has run up to its yield, without waiting for anything: the loop knows it now
        return self._link_made

    @property
    def _pipeline(self) -> Pipeline:
        if self._pipeline_made is None:
            self._pipeline_made = Pipeline(self._link)
        return self._pipeline_made


def _decoder(kind: type[T]) -> msgspec.json.Decoder[T]:
    """Return the decoder of `kind`; making one takes longer than using it."""
    found = _DECODERS.get(kind)
    if found is None:
        found = _DECODERS[kind] = msgspec.json.Decoder(kind)
    return found


async def _closed_with_loop(link: Link) -> AsyncGenerator[None, None]:
    """Close `link` when its loop ends, without anybody having to remember it.

    An event loop finishes the asynchronous generators that were begun in it before it closes (`asyncio.run` does, and
    every framework that runs on it). A program that enqueues and ends needs no `async with` for that.
    """
    try:
        yield
    finally:
        await link.aclose()
