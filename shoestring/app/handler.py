"""Handlers as their callers see them: typed, immutable, and still the function they were."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, Self, TypeVar, cast

import msgspec

from shoestring.app import fanout, options
from shoestring.app.job import Job
from shoestring.app.options import DurabilityName
from shoestring.app.source import Pages
from shoestring.core.model import Durability, Entry, Options
from shoestring.engine.registry import HandlerSpec

if TYPE_CHECKING:
    from shoestring.app.application import Shoestring

P = ParamSpec("P")
R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

#: A task as a value: what `handler.call(...)` returns, for `enqueue_many` and `then=`.
Call = Entry


class Receipt(msgspec.Struct, frozen=True):
    """What the producer holds of an accepted task.

    With `duplicate` nothing was stored: `task_id` is the task that already holds the `unique` key.
    """

    task_id: int
    duplicate: bool = False


class TakesItem(Protocol[T_contra]):
    """Anything whose first parameter takes one item; tells type checkers what may be fanned out to it."""

    def __call__(self, item: T_contra, /, *args: Any, **kwargs: Any) -> Any: ...


class TakesItems(Protocol[T]):
    """Anything whose first parameter takes a list of items."""

    def __call__(self, items: list[T], /, *args: Any, **kwargs: Any) -> Any: ...


class Handler(Generic[P, R_co]):
    """A function whose calls can be stored as tasks.

    Called directly it is the function it was, which is what a unit test wants. `using` returns the same handler with
    other options; a handler never changes.

    >>> from shoestring import Shoestring
    >>> app = Shoestring()
    >>> @app.task(name="mail", queue="mail")
    ... def send_mail(to: str, template: str = "welcome") -> str:
    ...     return f"{template} to {to}"
    >>> send_mail("a@b.example")
    'welcome to a@b.example'
    >>> call = send_mail.using(user="alice", priority=10).call("a@b.example")
    >>> bytes(call.body), call.options.priority
    (b'{"to":"a@b.example"}', 10)
    """

    #: The function's own, as are `__doc__`, `__module__` and `__wrapped__`.
    __name__: str

    def __init__(
        self, app: Shoestring, spec: HandlerSpec, fn: Callable[P, R_co], chosen: Options | None = None
    ) -> None:
        functools.update_wrapper(self, fn)
        self.app = app
        self.spec = spec
        self.chosen = chosen
        self._fn = fn
        self._name = spec.name
        self._encode = spec.arguments.encode

    def __repr__(self) -> str:
        return f"<handler {self._name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        return self._fn(*args, **kwargs)

    def using(
        self,
        *,
        user: str | None = None,
        queue: str | None = None,
        run_after: timedelta | datetime | None = None,
        priority: int | None = None,
        unique: str | None = None,
        expires: timedelta | datetime | None = None,
        durability: Durability | DurabilityName | None = None,
    ) -> Self:
        """Return this handler with these options for its tasks; None leaves an option as it is.

        `user` is the key work is accounted to and shared fairly between. `run_after` and `expires` take a length of
        time, counted from when the daemon accepts the task, or an aware datetime. `priority` is -100 to 100, higher
        first, within one user's tasks. While a task holds the `unique` key, enqueueing another with it stores
        nothing. `durability` is when the producer is answered. Raises ArgumentError for a value that cannot be.
        """
        chosen = options.merged(
            self.chosen,
            user=user,
            queue=queue,
            run_after=run_after,
            priority=priority,
            unique=unique,
            expires=expires,
            durability=durability,
        )
        return type(self)(self.app, self.spec, self._fn, chosen)

    def call(self, *args: P.args, **kwargs: P.kwargs) -> Call:
        """Return the call as a value, checked and encoded. Raises ArgumentError if the arguments do not fit."""
        return Entry(self._name, msgspec.Raw(self._encode(args, kwargs)), self.chosen)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """Store the call as a task; return once it is as safe as its durability says.

        Raises ArgumentError if the arguments do not fit, Refused if the queue cannot take it now, Unavailable if no
        daemon can be reached. If the wait is cancelled, or the daemon dies during it, the task may have been stored.
        """
        stored = await self.app.gateway().submit(
            Entry(self._name, msgspec.Raw(self._encode(args, kwargs)), self.chosen)
        )
        return Receipt(stored) if isinstance(stored, int) else Receipt(stored.task_id, True)

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Receipt:
        """Do as `enqueue`, for programs and threads without an event loop."""
        return self.app.run_sync(self.enqueue(*args, **kwargs))

    async def fan_out(
        self: TakesItem[T],
        items: Iterable[T] | AsyncIterable[T] | Pages[T],
        /,
        *,
        chunk: int = 50,
        every: timedelta | None = None,
        then: Call | None = None,
        args: Mapping[str, object] | None = None,
    ) -> Job:
        """Call this handler once per item, `chunk` items to a task; return the job that counts them.

        Iterables are streamed: a few slices are in memory at a time. The pages of a source are read by the daemon,
        at least `every` apart. `args` are the handler's other arguments, the same for each item; what is not in
        `args` is taken from the source's arguments of the same name. `then` is enqueued when every item came to
        an end.

        Raises SourceFailed if an item does not fit or the iterable raises: its `stored` items run, `then` does not.
        """
        handler = cast("Handler[..., object]", self)
        return await fanout.fan_out(handler, items, chunk=chunk, every=every, then=then, args=args)

    def fan_out_sync(
        self: TakesItem[T],
        items: Iterable[T] | Pages[T],
        /,
        *,
        chunk: int = 50,
        every: timedelta | None = None,
        then: Call | None = None,
        args: Mapping[str, object] | None = None,
    ) -> Job:
        """Do as `fan_out`, for programs without an event loop; `items` is iterated in the calling thread."""
        handler = cast("Handler[..., object]", self)
        return fanout.fan_out_sync(handler, items, chunk=chunk, every=every, then=then, args=args)


class BatchHandler(Handler[P, R_co]):
    """A handler declared with `batch=True`: its first parameter takes the list of a chunk's items."""

    async def fan_out(
        self: TakesItems[T],
        items: Iterable[T] | AsyncIterable[T] | Pages[T],
        /,
        *,
        chunk: int = 50,
        every: timedelta | None = None,
        then: Call | None = None,
        args: Mapping[str, object] | None = None,
    ) -> Job:
        """Call this handler once per chunk, with the list of its items; otherwise as `Handler.fan_out`."""
        handler = cast("Handler[..., object]", self)
        return await fanout.fan_out(handler, items, chunk=chunk, every=every, then=then, args=args)

    def fan_out_sync(
        self: TakesItems[T],
        items: Iterable[T] | Pages[T],
        /,
        *,
        chunk: int = 50,
        every: timedelta | None = None,
        then: Call | None = None,
        args: Mapping[str, object] | None = None,
    ) -> Job:
        """Do as `fan_out`, for programs without an event loop; `items` is iterated in the calling thread."""
        handler = cast("Handler[..., object]", self)
        return fanout.fan_out_sync(handler, items, chunk=chunk, every=every, then=then, args=args)
