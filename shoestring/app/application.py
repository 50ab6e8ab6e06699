"""The app object: what a project declares its handlers on, and the way to the queue from wherever it is used.

One object, three uses. The daemon imports the module it stands in, reads its registry and attaches its engine.
A producer (a web app, a script) imports the same module; calls go over the socket. A program that embeds the queue
runs the engine itself, with `async with app.running()`. Handlers do not see the difference: each call asks for the
gateway of the running event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Literal, ParamSpec, TypeVar, overload

from shoestring.app import bulk, declare
from shoestring.app.embedding import embedded
from shoestring.app.gateway import EngineGateway, Gateway
from shoestring.app.handler import BatchHandler, Call, Handler, Receipt
from shoestring.app.job import Job
from shoestring.app.options import DeliveryName, DurabilityName
from shoestring.app.source import Source
from shoestring.client import Client, LoopThread
from shoestring.config import Config
from shoestring.core.errors import UsageError
from shoestring.core.model import Delivery, Durability, JobId, Page, Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.engine.registry import Registry

if TYPE_CHECKING:
    from shoestring.engine.engine import Engine
    from shoestring.service import Service


P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Shoestring:
    """A project's handlers and sources, and the way to their queue.

    `config` is a file, a Config, or None to look for shoestring.toml; it is read when it is first needed, and nothing
    is connected before the first call. `connect_timeout` and `reconnect_timeout` are the client's, in seconds: how
    long to wait for a daemon that was never reached, and for one that went away.

    >>> app = Shoestring()
    >>> @app.task(name="greet")
    ... async def greet(name: str) -> None:
    ...     print(f"hello {name}")
    >>> async def main() -> None:
    ...     async with app.running() as service:       # or in another process: `shoestring run`
    ...         receipt = await greet.enqueue("ada")
    ...         await service.wait_idle()
    """

    def __init__(
        self,
        config: Config | Path | str | None = None,
        *,
        connect_timeout: float = 0.0,
        reconnect_timeout: float = 10.0,
    ) -> None:
        self.registry = Registry()
        self._config = config
        self._connect_timeout = connect_timeout
        self._reconnect_timeout = reconnect_timeout
        self._gateways: dict[asyncio.AbstractEventLoop, Gateway] = {}
        self._engine_loop: asyncio.AbstractEventLoop | None = None
        self._engine_pid = 0
        self._thread = LoopThread()

    @property
    def config(self) -> Config:
        """The configuration; read on first use. Raises ConfigError naming file, key and remedy."""
        if not isinstance(self._config, Config):
            self._config = Config.load(self._config)
        return self._config

    # -- Declaring ---------------------------------------------------------------------------------------------

    @overload
    def task(self, fn: Callable[P, R], /) -> Handler[P, R]: ...

    @overload
    def task(
        self,
        /,
        *,
        batch: Literal[True],
        name: str | None = ...,
        queue: str = ...,
        retry: RetryPolicy | None = ...,
        timeout: Timeout | None = ...,
        durability: Durability | DurabilityName = ...,
        delivery: Delivery | DeliveryName = ...,
        concurrency: int | None = ...,
    ) -> Callable[[Callable[P, R]], BatchHandler[P, R]]: ...

    @overload
    def task(
        self,
        /,
        *,
        batch: Literal[False] = ...,
        name: str | None = ...,
        queue: str = ...,
        retry: RetryPolicy | None = ...,
        timeout: Timeout | None = ...,
        durability: Durability | DurabilityName = ...,
        delivery: Delivery | DeliveryName = ...,
        concurrency: int | None = ...,
    ) -> Callable[[Callable[P, R]], Handler[P, R]]: ...

    def task(self, fn: Callable[..., Any] | None = None, /, **chosen: Any) -> Any:
        """Declare a handler, as `@app.task` or `@app.task(...)`.

        `name` is what stored tasks know it by, `module.function` if not given: renaming the function then leaves
        its tasks waiting. `retry`, `timeout` and `durability` have the defaults of their classes. With
        `delivery="at_most_once"` a task that may have begun is never begun again. `concurrency` bounds how many
        run at once. With `batch=True` the first parameter takes the list of a chunk's items. Plain functions run
        in threads, coroutine functions in the event loop.

        Raises UsageError for a name that is taken, and for what cannot be an option or an argument.
        """
        if fn is not None:
            return self._declare(fn)
        return lambda function: self._declare(function, **chosen)

    def _declare(self, fn: Callable[..., Any], **chosen: Any) -> Handler[..., Any]:
        spec = declare.handler_spec(fn, **chosen)
        self.registry.add_handler(spec)
        return (BatchHandler if spec.batch else Handler)(self, spec, fn)

    @overload
    def source(self, fn: Callable[Concatenate[str | None, P], Awaitable[Page[T]]], /) -> Source[P, T]: ...

    @overload
    def source(
        self, /, *, name: str | None = ..., timeout: Timeout | None = ..., retry: RetryPolicy | None = ...
    ) -> Callable[[Callable[Concatenate[str | None, P], Awaitable[Page[T]]]], Source[P, T]]: ...

    def source(self, fn: Callable[..., Any] | None = None, /, **chosen: Any) -> Any:
        """Declare a paged source, as `@app.source` or `@app.source(...)`.

        It is an async function of a cursor, None at first, and of arguments; it returns a `Page` with the cursor of
        the next, None at the end. The daemon stores a page's items and the next cursor together, so a page may be
        read twice but its items are never lost.
        """
        if fn is not None:
            return self._declare_source(fn)
        return lambda function: self._declare_source(function, **chosen)

    def _declare_source(self, fn: Callable[..., Any], **chosen: Any) -> Source[..., Any]:
        spec = declare.source_spec(fn, **chosen)
        self.registry.add_source(spec)
        return Source(spec, fn)

    # -- Producing ---------------------------------------------------------------------------------------------

    async def enqueue_many(self, calls: Iterable[Call] | AsyncIterable[Call]) -> list[Receipt]:
        """Store many calls: up to 5,000 (or 1 MiB) in one round trip and one commit, more in slices of that.

        `calls` is read as it is sent. Returns the receipts in order. Raises PartlyStored if some were stored and some
        not; if nothing was stored, the error itself.
        """
        return await bulk.enqueue_many(self, calls)

    def enqueue_many_sync(self, calls: Iterable[Call]) -> list[Receipt]:
        """Do as `enqueue_many`, for programs without an event loop; `calls` is read in the calling thread."""
        return bulk.enqueue_many_sync(self, calls)

    def job(self, job_id: int) -> Job:
        """Return the job of that id, whoever opened it. Nothing is asked before one of its methods is called."""
        return Job(self, JobId(job_id))

    # -- Where calls go ----------------------------------------------------------------------------------------

    def gateway(self) -> Gateway:
        """Return where calls made in the running event loop go: its client, or the engine that runs in it."""
        loop = asyncio.get_running_loop()
        found = self._gateways.get(loop)
        return found if found is not None else self._connected(loop)

    def _connected(self, loop: asyncio.AbstractEventLoop) -> Gateway:
        if self._loop_of_engine() is not None:
            raise UsageError(
                "this event loop is not the one the queue runs in, in this process. From a thread, call the `_sync` "
                "method instead, as in handler.enqueue_sync(...)"
            )
        for known in list(self._gateways):
            if known.is_closed():
                self._gateways.pop(known, None)
        client = Client(
            self.config.socket, connect_timeout=self._connect_timeout, reconnect_timeout=self._reconnect_timeout
        )
        self._gateways[loop] = client
        return client

    def run_sync(self, coroutine: Coroutine[object, object, T]) -> T:
        """Run a coroutine of this app from a program or thread without an event loop; return what it returns."""
        engine_loop = self._loop_of_engine()
        if engine_loop is None:
            return self._thread.run(coroutine)
        if _running_loop() is engine_loop:
            coroutine.close()
            raise UsageError(
                "this would wait for the event loop it is called in, for ever. Await the method without `_sync` instead"
            )
        return asyncio.run_coroutine_threadsafe(coroutine, engine_loop).result()

    def _loop_of_engine(self) -> asyncio.AbstractEventLoop | None:
        """Return the loop an engine is attached in; None in a process forked from there, where it does not run."""
        return self._engine_loop if self._engine_pid == os.getpid() else None

    @contextmanager
    def attached(self, engine: Engine) -> Iterator[None]:
        """Send calls from this process straight to `engine`, which runs in the running loop, while in this context.

        The daemon does so for the app it runs, so that handlers that enqueue need no socket.
        """
        loop = asyncio.get_running_loop()
        if self._loop_of_engine() is not None:
            raise UsageError("this app is attached to an engine already; one app has one queue at a time")
        before = self._gateways.get(loop)
        self._gateways[loop] = EngineGateway(engine)
        self._engine_loop, self._engine_pid = loop, os.getpid()
        try:
            yield
        finally:
            self._engine_loop = None
            del self._gateways[loop]
            if before is not None:
                self._gateways[loop] = before

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Service]:
        """Run the queue in this process and event loop: no daemon, no socket, the same file and guarantees.

        Yields the service, whose `wait_idle()` returns when nothing is pending. On leaving, what runs is given
        `run.grace_s` to end, then released. Raises AlreadyOwned if a daemon owns the database file.
        """
        async with embedded(self.config, self.registry) as service:
            with self.attached(service.engine):
                yield service

    async def aclose(self) -> None:
        """Close this event loop's connection to the daemon. A loop that ends does so by itself."""
        loop = asyncio.get_running_loop()
        client = self._gateways.get(loop)
        if isinstance(client, Client):
            del self._gateways[loop]
            await client.aclose()

    def close(self) -> None:
        """End the thread and the connection of the `_sync` methods. A program that ends does so by itself."""
        self._thread.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
