"""What a handler's annotations mean: one type per parameter, resolved and known to fit JSON.

Annotations are resolved parameter by parameter, so that a return type imported under `if TYPE_CHECKING` does not
matter. Each type is then checked at declaration: msgspec accepts any class and fails on the first value, which
would be in production, in the middle of a job.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec.inspect import CustomType, type_info

from shoestring.core.errors import UsageError

_LISTS = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection)


def parameters_of(fn: Callable[..., object], name: str) -> list[inspect.Parameter]:
    """Return `fn`'s parameters with their annotations resolved to types; `Any` where there is none.

    Raises UsageError naming the parameter if its annotation cannot be resolved or cannot be read from JSON.
    """
    try:
        signature = inspect.signature(fn)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name}: its parameters cannot be read ({error}); declare a plain function") from None
    namespace = _globals_of(fn)
    return [_resolved(parameter, namespace, name) for parameter in signature.parameters.values()]


def element_of(parameter: inspect.Parameter, name: str) -> Any:
    """Return T of the `list[T]` a `batch=True` handler is given."""
    annotation = parameter.annotation
    if annotation is Any or annotation is list:
        return Any
    if typing.get_origin(annotation) in _LISTS:
        return typing.get_args(annotation)[0]
    raise UsageError(
        f"{name}: with batch=True it is given a list of items, but parameter {parameter.name} is annotated "
        f"{inspect.formatannotation(annotation)}; annotate it list[...]"
    )


def _globals_of(fn: Callable[..., object]) -> dict[str, Any]:
    target: Any = inspect.unwrap(fn)
    while isinstance(target, functools.partial):
        target = inspect.unwrap(target.func)
    if not hasattr(target, "__globals__"):
        target = type(target).__call__
    found: dict[str, Any] = getattr(target, "__globals__", {})
    return found


def _resolved(parameter: inspect.Parameter, namespace: dict[str, Any], name: str) -> inspect.Parameter:
    if parameter.annotation is parameter.empty:
        return parameter.replace(annotation=Any)
    holder = types.SimpleNamespace(__annotations__={parameter.name: parameter.annotation})
    try:
        found = typing.get_type_hints(holder, namespace, include_extras=True)[parameter.name]
    except Exception as error:  # noqa: BLE001 - an annotation is the user's expression: anything can come out of it
        raise UsageError(
            f"{name}: the annotation of parameter {parameter.name} cannot be resolved ({error}); "
            "its names must exist at the top of the module when the program runs"
        ) from None
    _refuse_unsupported(found, parameter.name, name)
    return parameter.replace(annotation=found)


def _refuse_unsupported(annotation: Any, parameter: str, name: str) -> None:
    try:
        msgspec.json.Decoder(annotation)
        stranger = _stranger_in(type_info(annotation), set())
    except Exception as error:  # noqa: BLE001 - msgspec raises several kinds, the user's classes any
        raise UsageError(f"{name}: parameter {parameter} cannot be sent as JSON: {error}") from None
    if stranger is not None:
        raise UsageError(
            f"{name}: parameter {parameter} cannot be sent as JSON: nothing says how to write a "
            f"{inspect.formatannotation(stranger)}; pass its id, or make it a dataclass"
        )


def _stranger_in(node: object, seen: set[int]) -> type | None:
    """Return the first class within the described type that msgspec cannot decode, if any."""
    if isinstance(node, CustomType):
        return None if node.cls is object else node.cls
    if isinstance(node, tuple):
        children = node
    elif isinstance(node, msgspec.Struct) and id(node) not in seen:
        # A type that contains itself is described by a cycle.
        seen.add(id(node))
        children = msgspec.structs.astuple(node)
    else:
        return None
    return next((found for child in children if (found := _stranger_in(child, seen)) is not None), None)
