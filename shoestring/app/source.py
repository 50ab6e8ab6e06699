"""Paged sources: declared with `@app.source`, called by the daemon page by page."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Concatenate, Generic, ParamSpec, TypeVar

import msgspec

from shoestring.core.model import Page, SourceCall
from shoestring.engine.registry import SourceSpec

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Pages(Generic[T_co]):
    """A source and its arguments: the items of a fan-out that the daemon will read itself."""

    def __init__(self, name: str, body: bytes, arguments: Mapping[str, object]) -> None:
        self.call = SourceCall(name=name, body=msgspec.Raw(body))
        #: What the source was given, by name; a handler's parameters of the same names are filled from it.
        self.arguments = arguments

    def __repr__(self) -> str:
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        return f"<pages of {self.call.name}({given})>"


class Source(Generic[P, T]):
    """An async function that yields a job's items page by page, from a cursor.

    It stays callable as it was written: `await followers(None, account="troll")` returns the first page.
    """

    def __init__(self, spec: SourceSpec, fn: Callable[Concatenate[str | None, P], Awaitable[Page[T]]]) -> None:
        functools.update_wrapper(self, fn)
        self.spec = spec
        self._fn = fn
        signature = inspect.signature(fn)
        self._signature = signature.replace(parameters=list(signature.parameters.values())[1:])

    def __repr__(self) -> str:
        return f"<source {self.spec.name}>"

    def __call__(self, cursor: str | None, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[Page[T]]:
        return self._fn(cursor, *args, **kwargs)

    def of(self, *args: P.args, **kwargs: P.kwargs) -> Pages[T]:
        """Return the source with its arguments, to be fanned out. Raises ArgumentError if they do not fit."""
        body = self.spec.arguments.encode(args, kwargs)
        return Pages(self.spec.name, body, self._signature.bind(*args, **kwargs).arguments)
