"""What the app declares: handlers and sources, by name, with their options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from shoestring.core.errors import UsageError
from shoestring.core.model import Delivery, Durability, Timeout
from shoestring.core.retry import RetryPolicy
from shoestring.core.signature import Arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerSpec:
    """A handler: the function and how its tasks are run. `fn` takes and returns whatever its author wrote."""

    name: str
    fn: Callable[..., Any]
    is_async: bool
    arguments: Arguments
    queue: str = "default"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    timeout: Timeout = field(default_factory=Timeout)
    durability: Durability = Durability.RELAXED
    delivery: Delivery = Delivery.AT_LEAST_ONCE
    concurrency: int | None = None
    batch: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """A paged source: `await fn(cursor, **arguments)` returns a `Page`."""

    name: str
    fn: Callable[..., Any]
    arguments: Arguments
    timeout: Timeout = field(default_factory=Timeout)
    retry: RetryPolicy = field(default_factory=RetryPolicy)


class Registry:
    """The handlers and sources of one app, by name."""

    def __init__(self) -> None:
        self.handlers: dict[str, HandlerSpec] = {}
        self.sources: dict[str, SourceSpec] = {}

    def add_handler(self, spec: HandlerSpec) -> None:
        if spec.name in self.handlers:
            raise UsageError(f"two handlers are named {spec.name!r}. Give one of them another `name=`.")
        self.handlers[spec.name] = spec

    def add_source(self, spec: SourceSpec) -> None:
        if spec.name in self.sources:
            raise UsageError(f"two sources are named {spec.name!r}. Give one of them another `name=`.")
        self.sources[spec.name] = spec
