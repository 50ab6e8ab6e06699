"""The same client for programs without an event loop: one loop in a background thread, and a thin shell over it.

There is no second implementation. A call hands its coroutine to the loop's thread and waits; calls of several
threads share the one connection, its frames and its commits.
"""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from shoestring.client.client import Client, Pong
from shoestring.client.pipeline import Stored
from shoestring.core.errors import ShoestringError
from shoestring.core.model import Entry, JobId, JobSpec, JobState, Options, Progress, Status, TaskState, TaskView

T = TypeVar("T")

#: Loops whose thread stayed behind in the process this one was forked from. Collecting one would close its selector,
#: which the two processes share, and take the parent's sockets out of it; so they are kept, and never touched.
_FORKED_AWAY: Final[list[object]] = []


class LoopThread:
    """An event loop in a background thread: started when it is first needed, and again after a fork.

    It ends with `close()`, when this object is collected, or when the program ends.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._end: weakref.finalize[[asyncio.AbstractEventLoop, threading.Thread], LoopThread] | None = None
        self._pid = 0

    def run(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run `coroutine` in the loop's thread and return what it returns. Interrupting the wait cancels it."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop())
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def loop(self) -> asyncio.AbstractEventLoop:
        """Return the running loop; another one after `close()` or in a forked child."""
        with self._lock:
            if self._loop is not None and self._pid != os.getpid():
                _FORKED_AWAY.append(self._loop)
                if self._end is not None:
                    self._end.detach()
                self._loop = None
            if self._loop is None:
                # asyncio's own loop: a thread that mostly waits gains nothing from uvloop, whose import costs 20 ms.
                self._loop = asyncio.SelectorEventLoop()
                self._pid = os.getpid()
                thread = threading.Thread(target=self._loop.run_forever, name="shoestring-client", daemon=True)
                thread.start()
                self._end = weakref.finalize(self, _end, self._loop, thread)
            return self._loop

    def close(self) -> None:
        """End what runs in the loop and stop its thread; a later `run` starts another."""
        with self._lock:
            end, self._end = self._end, None
            self._loop = None
        if end is not None and self._pid == os.getpid():
            end()


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    if thread is threading.current_thread():
        loop.stop()  # collected by the loop's own thread, which cannot wait for itself
        return
    asyncio.run_coroutine_threadsafe(_wind_up(loop), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


async def _wind_up(loop: asyncio.AbstractEventLoop) -> None:
    own = asyncio.current_task()
    others = [other for other in asyncio.all_tasks() if other is not own]
    for other in others:
        other.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    await loop.shutdown_asyncgens()


class BlockingClient:
    """`Client` for programs without an event loop; see there. Any thread may use it, and a forked child.

    Use it in a `with`, or `close()` it: it keeps a thread and a connection until then.
    """

    def __init__(self, socket: Path | str, *, connect_timeout: float = 0.0, reconnect_timeout: float = 10.0) -> None:
        self._make = partial(Client, socket, connect_timeout=connect_timeout, reconnect_timeout=reconnect_timeout)
        self._thread = LoopThread()
        self._lock = threading.Lock()
        self._bound: tuple[asyncio.AbstractEventLoop, Client] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection and end the thread."""
        self._thread.close()

    def submit_many(self, entries: Sequence[Entry]) -> list[Stored | ShoestringError]:
        return self._do(lambda client: client.submit_many(entries))

    def enqueue(
        self, handler: str, arguments: Mapping[str, object] | None = None, options: Options | None = None
    ) -> Stored:
        return self._do(lambda client: client.enqueue(handler, arguments, options))

    def task(self, task_id: int) -> TaskView:
        return self._do(lambda client: client.task(task_id))

    def cancel_task(self, task_id: int) -> TaskView:
        return self._do(lambda client: client.cancel_task(task_id))

    def tasks(
        self,
        *,
        queue: str | None = None,
        user: str | None = None,
        handler: str | None = None,
        state: TaskState | None = None,
        limit: int = 100,
    ) -> list[TaskView]:
        return self._do(lambda client: client.tasks(queue=queue, user=user, handler=handler, state=state, limit=limit))

    def discarded(self, *, handler: str | None = None, queue: str | None = None, limit: int = 100) -> list[TaskView]:
        return self._do(lambda client: client.discarded(handler=handler, queue=queue, limit=limit))

    def replay(
        self,
        *,
        task_ids: Sequence[int] = (),
        handler: str | None = None,
        queue: str | None = None,
        all: bool = False,
    ) -> int:
        return self._do(lambda client: client.replay(task_ids=task_ids, handler=handler, queue=queue, all=all))

    def open_job(self, spec: JobSpec) -> JobId:
        return self._do(lambda client: client.open_job(spec))

    def progress(self, job_id: int) -> Progress:
        return self._do(lambda client: client.progress(job_id))

    def wait_job(self, job_id: int, *, version: int, timeout_s: float) -> Progress:
        return self._do(lambda client: client.wait_job(job_id, version=version, timeout_s=timeout_s))

    def cancel_job(self, job_id: int) -> Progress:
        return self._do(lambda client: client.cancel_job(job_id))

    def jobs(self, *, state: JobState | None = None, limit: int = 100) -> list[Progress]:
        return self._do(lambda client: client.jobs(state=state, limit=limit))

    def status(self) -> Status:
        return self._do(lambda client: client.status())

    def ping(self) -> Pong:
        return self._do(lambda client: client.ping())

    def _do(self, call: Callable[[Client], Coroutine[object, object, T]]) -> T:
        loop = self._thread.loop()
        with self._lock:
            if self._bound is None or self._bound[0] is not loop:
                self._bound = (loop, self._make())
            client = self._bound[1]
        return self._thread.run(call(client))
