"""From a function and what its decorator says to the record the engine runs it by."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from shoestring.app import options
from shoestring.app.options import DeliveryName, DurabilityName
from shoestring.core.errors import UsageError
from shoestring.core.model import Delivery, Durability, Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signature import Arguments
from shoestring.engine.registry import HandlerSpec, SourceSpec

NAME_CHARS_MAX: Final = 200
CONCURRENCY_MAX: Final = 10_000


def handler_spec(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    queue: str = "default",
    retry: RetryPolicy | None = None,
    timeout: Timeout | None = None,
    durability: Durability | DurabilityName = Durability.RELAXED,
    delivery: Delivery | DeliveryName = Delivery.AT_LEAST_ONCE,
    concurrency: int | None = None,
    batch: bool = False,
) -> HandlerSpec:
    """Return a handler's record; raise UsageError for what cannot be."""
    _refuse_no_function(fn, "task")
    if inspect.isasyncgenfunction(fn) or inspect.isgeneratorfunction(fn):
        raise UsageError(f"{name_of(fn)} yields: a handler runs once and ends. For pages of items use @app.source")
    if not isinstance(batch, bool):
        raise UsageError(f"batch is {batch!r}; give True or False")
    return HandlerSpec(
        name=_checked_name(name, fn),
        fn=fn,
        is_async=_is_async(fn),
        arguments=Arguments.of(fn, batch=batch),
        queue=options.text("queue", queue),
        retry=_policy(retry),
        timeout=options.timeout(timeout),
        durability=options.member("durability", Durability, durability),
        delivery=options.member("delivery", Delivery, delivery),
        concurrency=None if concurrency is None else options.positive("concurrency", concurrency, CONCURRENCY_MAX),
        batch=batch,
    )


def source_spec(
    fn: Callable[..., Any],
    *,
    name: str | None = None,
    timeout: Timeout | None = None,
    retry: RetryPolicy | None = None,
) -> SourceSpec:
    """Return a source's record; raise UsageError for what cannot be."""
    _refuse_no_function(fn, "source")
    if not _is_async(fn):
        raise UsageError(
            f"{name_of(fn)} is no coroutine function; a source is `async def`, takes a cursor and returns a Page"
        )
    return SourceSpec(
        name=_checked_name(name, fn),
        fn=fn,
        arguments=Arguments.of(fn, skip_item=True),
        timeout=options.timeout(timeout),
        retry=_policy(retry),
    )


def name_of(fn: Callable[..., Any]) -> str:
    """Return the name tasks of `fn` are stored under: `module.function`.

    In a module run as a script, `__main__`, it is the name the daemon will import it by, as far as can be told.
    """
    module = getattr(fn, "__module__", None) or type(fn).__module__
    if module == "__main__":
        main = sys.modules["__main__"]
        spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name.removesuffix(".__main__")
        elif file is not None:
            module = Path(file).stem
    return f"{module}.{getattr(fn, '__qualname__', type(fn).__qualname__)}"


def _checked_name(name: str | None, fn: Callable[..., Any]) -> str:
    found = name_of(fn) if name is None else options.text("name", name)
    if len(found) > NAME_CHARS_MAX:
        raise UsageError(f"the name {found[:60]}... has {len(found)} characters; at most {NAME_CHARS_MAX} are kept")
    return found


def _is_async(fn: Callable[..., Any]) -> bool:
    return inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(type(fn).__call__)


def _policy(retry: RetryPolicy | None) -> RetryPolicy:
    policy = RetryPolicy() if retry is None else retry
    if not isinstance(policy, RetryPolicy):
        raise UsageError(f"retry is {retry!r}; give a RetryPolicy, as in RetryPolicy(max_attempts=10)")
    return policy


def _refuse_no_function(fn: object, decorator: str) -> None:
    if not callable(fn):
        raise UsageError(f"@app.{decorator} was given {fn!r}, which is no function; options are given by name")
