"""A list of parameters as JSON: bound like a call, checked against the annotations, given back typed.

A body is a JSON object of the arguments by name; arguments left to their defaults are absent, so the default of the
code that runs the task applies. `*args` is an array under its own name, `**kwargs` are further keys.

`Shape.decode` is an attribute, not a method, so that it can be the fastest that fits the parameters.

Two structs are made from the parameters, because they are the fastest way through each step (measured: binding two
arguments into a struct takes 50 ns, into a dict 390 ns):

    call       built with the caller's own `*args, **kwargs`: C code binds, and notices what is missing or too much
    arguments  what a body decodes into, typed; its fields stand in the order of the call

What was encoded is decoded at once, typed: what passes here is what the handler will see.
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter, Signature
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw
from msgspec.structs import asdict, astuple

from shoestring.core.errors import ArgumentError, UsageError
from shoestring.core.misfit import MISFITS, NOT_FINITE, blamed, not_finite, told

Body = bytes | Raw
_Bound = msgspec.Struct | dict[str, object]
Call = tuple[tuple[object, ...], dict[str, object]]

_NO_CALL: Final[dict[str, object]] = {}
_encode: Final = msgspec.json.Encoder().encode
_members: Final = msgspec.json.Decoder(dict[str, Raw]).decode
_MISSING: Final = re.compile(r"^Object missing required field `(.*)`$")
_UNKNOWN: Final = re.compile(r"^Object contains unknown field `(.*)`$")
#: Defaults a struct may hold as they are; all others are handed out by a factory, the same object every time, as
#: a Python call does.
_PLAIN_DEFAULTS: Final = (str, int, float, bool, bytes, type(None))


class Shape:
    """The parameters of the function that errors call `name`."""

    __slots__ = (
        "_bind",
        "_extra",
        "_keywords",
        "_positional",
        "_read",
        "_rest",
        "decode",
        "decode_named",
        "name",
        "positional_only",
        "signature",
    )

    #: decode(body) -> (args, kwargs), ready for `fn(*args, **kwargs)`; raises ArgumentError.
    decode: Callable[[Body], Call]
    #: decode_named(body) -> kwargs, ready for `fn(**kwargs)`; raises ArgumentError.
    decode_named: Callable[[Body], dict[str, object]]

    def __init__(self, name: str, parameters: Sequence[Parameter]) -> None:
        self.name = name
        self.signature = Signature(parameters)
        kinds: dict[Any, list[Parameter]] = {}
        for parameter in parameters:
            kinds.setdefault(parameter.kind, []).append(parameter)
        positional_only = kinds.get(Parameter.POSITIONAL_ONLY, [])
        positional = positional_only + kinds.get(Parameter.POSITIONAL_OR_KEYWORD, [])
        rest = kinds.get(Parameter.VAR_POSITIONAL, [])
        keywords = kinds.get(Parameter.KEYWORD_ONLY, [])
        extra = kinds.get(Parameter.VAR_KEYWORD, [])
        self._positional = [parameter.name for parameter in positional]
        self.positional_only = [parameter.name for parameter in positional_only]
        self._keywords = [parameter.name for parameter in keywords]
        self._rest = rest[0].name if rest else None
        self._extra: Callable[[Body], object] | None = None
        if extra:
            self._extra = msgspec.json.Decoder(extra[0].annotation).decode
        try:
            arguments = _struct(positional + rest, keywords, _typed_field, closed=not extra)
            # A struct cannot have a field of a "private" name, and C code binds neither `*args` nor `**kwargs`.
            plain = not (positional_only or rest or extra or any(each.name.startswith("__") for each in parameters))
            self._bind: Callable[..., _Bound] = self._bind_by_hand
            if plain:
                self._bind = _struct(positional, keywords, _call_field, closed=True)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{name}{self.signature}: a parameter's name cannot be used: {error}") from None
        self._read: Callable[[Body], msgspec.Struct] = msgspec.json.Decoder(arguments).decode
        self.decode = self._decode_keywords if plain else self._decode_by_hand
        if len(positional) == len(parameters):
            self.decode = self._decode_positional
        self.decode_named = self._decode_named if plain else self._decode_named_by_hand

    def encode(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> bytes:
        """Return the body for `fn(*args, **kwargs)`; raise ArgumentError if it does not fit."""
        try:
            call = self._bind(*args, **kwargs)
        except TypeError:
            raise self._not_bound(args, kwargs) from None
        try:
            body = _encode(call)
            self._read(body)
            if self._extra is not None:
                self._read_extra(body)
        except MISFITS as error:
            raise self._misfit(error, call) from None
        if b"null" in body and (path := not_finite(call)) is not None:
            raise ArgumentError(f"{self.name}: argument {path}: {NOT_FINITE}")
        return body

    def check(self, body: Body) -> None:
        """Raise ArgumentError unless `body` decodes into these parameters."""
        try:
            self._read(body)
            if self._extra is not None:
                self._read_extra(body)
        except MISFITS as error:
            raise self._misfit(error) from None

    def _decode_positional(self, body: Body) -> Call:
        try:
            return astuple(self._read(body)), {}
        except MISFITS as error:
            raise self._misfit(error) from None

    def _decode_keywords(self, body: Body) -> Call:
        return (), self._decode_named(body)

    def _decode_named(self, body: Body) -> dict[str, object]:
        try:
            return asdict(self._read(body))
        except MISFITS as error:
            raise self._misfit(error) from None

    def _decode_named_by_hand(self, body: Body) -> dict[str, object]:
        args, kwargs = self._decode_by_hand(body)
        return {**dict(zip(self._positional, args, strict=False)), **kwargs}

    def _decode_by_hand(self, body: Body) -> Call:
        try:
            values = astuple(self._read(body))
            extra = self._read_extra(body) if self._extra is not None else {}
        except MISFITS as error:
            raise self._misfit(error) from None
        count = len(self._positional)
        args = values[:count]
        if self._rest is not None:
            args += tuple(values[count])
            count += 1
        kwargs: dict[str, object] = dict(zip(self._keywords, values[count:], strict=True))
        kwargs.update(extra)
        return args, kwargs

    def _read_extra(self, body: Body) -> dict[str, object]:
        """Return the arguments that go to `**kwargs`: the keys that are no other parameter's name."""
        assert self._extra is not None
        known = {*self._positional, *self._keywords, self._rest}
        extra: dict[str, object] = {}
        for key, raw in _members(body).items():
            if key not in known:
                try:
                    extra[key] = self._extra(raw)
                except msgspec.ValidationError as error:
                    what, path = told(error)
                    raise msgspec.ValidationError(f"{what} - at `$.{key}{path[1:]}`") from None
        return extra

    def _bind_by_hand(self, /, *args: object, **kwargs: object) -> dict[str, object]:
        """Bind a call the struct cannot: one with `*args`, `**kwargs` or positional-only parameters."""
        bound = self.signature.bind(*args, **kwargs)
        members = dict(bound.arguments)
        if self._extra is not None:
            extra = members.pop(next(reversed(self.signature.parameters)), {})
            if taken := extra.keys() & {*self._positional, self._rest}:
                raise TypeError(f"keyword argument {min(taken)!r} has the name of a positional one")
            members.update(extra)
        return members

    def _not_bound(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> ArgumentError:
        # The struct's own words speak of fields; the function's signature finds the same mistake in Python's words.
        try:
            self._bind_by_hand(*args, **kwargs)
        except TypeError as error:
            return ArgumentError(f"{self.name}{self.signature}: {error}")
        raise AssertionError(f"{self.name}{self.signature} takes a call that its struct refuses: {args}, {kwargs}")

    def _misfit(self, error: Exception, call: _Bound = _NO_CALL) -> ArgumentError:
        if (found := _MISSING.match(str(error))) is not None:
            return ArgumentError(f"{self.name}{self.signature}: missing a required argument: {found[1]!r}")
        if (found := _UNKNOWN.match(str(error))) is not None:
            return ArgumentError(f"{self.name}{self.signature}: got an unexpected keyword argument {found[1]!r}")
        given = asdict(call) if isinstance(call, msgspec.Struct) else call
        what, path = blamed(error, ((f"$.{name}", value) for name, value in given.items() if value is not UNSET))
        return ArgumentError(f"{self.name}: argument {path}: {what}" if path else f"{self.name}: arguments: {what}")


def _struct(
    positional: list[Parameter], keywords: list[Parameter], field: Callable[[Parameter], Any], *, closed: bool
) -> type[msgspec.Struct]:
    bases: tuple[type[msgspec.Struct], ...] = (msgspec.Struct,)
    if keywords:
        # Keyword-only fields come from a base of their own; a struct puts them behind the positional ones.
        bases = (msgspec.defstruct("Keywords", [field(each) for each in keywords], kw_only=True, gc=False),)
    fields = [field(each) for each in positional]
    return msgspec.defstruct("Arguments", fields, bases=bases, forbid_unknown_fields=closed, gc=False)


def _typed_field(parameter: Parameter) -> Any:
    name, annotation, default = parameter.name, parameter.annotation, parameter.default
    # A struct refuses fields of names such as `__x`: those are named otherwise, and found by their place.
    field = f"private{name}" if name.startswith("__") else name
    if parameter.kind is Parameter.VAR_POSITIONAL:
        return field, types.GenericAlias(list, (annotation,)), msgspec.field(name=name, default_factory=list)
    if default is Parameter.empty:
        return field, annotation, msgspec.field(name=name)
    if isinstance(default, _PLAIN_DEFAULTS):
        return field, annotation, msgspec.field(name=name, default=default)
    return field, annotation, msgspec.field(name=name, default_factory=lambda: default)


def _call_field(parameter: Parameter) -> Any:
    return (parameter.name, Any) if parameter.default is Parameter.empty else (parameter.name, Any, UNSET)
