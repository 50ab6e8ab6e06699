"""Arguments travel as JSON and arrive as the call they were."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.errors import ArgumentError, UsageError
from shoestring.core.signature import Arguments

if TYPE_CHECKING:
    from nowhere import Missing  # type: ignore[import-not-found]


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass
class Address:
    street: str
    number: int = 1


class Parcel(msgspec.Struct):
    to: Address
    weight: Decimal


class Label(TypedDict):
    text: str


class Opaque:
    """A class that nothing says how to write as JSON."""


@dataclass
class Holder:
    held: Opaque


class Tree(msgspec.Struct):
    """A type that contains itself."""

    children: list[Tree] = []


def send_mail(to: str, template: str) -> None: ...
def block(target: int, *, account: str, force: bool = False) -> None: ...
def every_kind(first: int, /, second: int = 2, *rest: int, third: int = 3, **more: int) -> None: ...
def nothing() -> None: ...


def refused(arguments: Arguments, *args: object, **kwargs: object) -> str:
    with pytest.raises(ArgumentError) as caught:
        arguments.encode(args, kwargs)
    return str(caught.value)


def round_trip(fn: Callable[..., object], *args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, Any]]:
    arguments = Arguments.of(fn)
    return arguments.decode(arguments.encode(args, kwargs))


TYPED: list[tuple[Any, object]] = [
    (int, 2**63),
    (float, 0.1),
    (bool, True),
    (str, "Grüße\x00\u2028"),
    (bytes, b"\x00\xff"),
    (datetime, datetime(2026, 11, 21, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=1)))),
    (timedelta, timedelta(days=1, microseconds=1)),
    (UUID, UUID("12345678-1234-5678-1234-567812345678")),
    (Decimal, Decimal("0.10")),
    (Colour, Colour.BLUE),
    (Address, Address("Ring", 7)),
    (Parcel, Parcel(Address("Ring"), Decimal(2))),
    (Label, {"text": "fragile"}),
    (Tree, Tree([Tree(), Tree([Tree()])])),
    (list[Colour], [Colour.RED]),
    (dict[str, list[Address]], {"home": [Address("Ring")]}),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (int | str, "five"),
    (Address | None, None),
    (Address | None, Address("Ring")),
    (Literal["a", "b"], "b"),
    (Annotated[int, msgspec.Meta(ge=0)], 0),
    (Any, {"any": [1, 2.5, None, True, "x"]}),
    (object, [1, None]),
    (Sequence[int], [1, 2]),
]


@pytest.mark.parametrize(("annotation", "value"), TYPED, ids=[str(annotation) for annotation, _ in TYPED])
def test_a_value_comes_back_as_its_annotation_says(annotation: Any, value: object) -> None:
    """A handler must see the type it declares, not the JSON it travelled as."""

    def handler(value: Any) -> None: ...

    handler.__annotations__["value"] = annotation
    assert ((value,), {}) == round_trip(handler, value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=10,
)


@given(JSON, JSON)
def test_any_json_value_survives_without_annotations(first: object, second: object) -> None:
    """An unannotated parameter takes whatever JSON can say."""

    def handler(a, *, b) -> None:  # type: ignore[no-untyped-def]
        ...

    assert ((), {"a": first, "b": second}) == round_trip(handler, first, b=second)


def called(*args: object, **kwargs: object) -> object:
    """Return what `every_kind` would see, whichever way the arguments were given."""
    return every_kind_seen(*args, **kwargs)  # type: ignore[arg-type]


def every_kind_seen(first: int, /, second: int = 2, *rest: int, third: int = 3, **more: int) -> object:
    return first, second, rest, third, more


@given(
    st.lists(st.integers(), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(["third", "more", "self", "x", "__y"]), st.integers()),
)
def test_the_handler_sees_the_call_that_was_made(args: list[int], kwargs: dict[str, int]) -> None:
    """Positional, variadic and keyword arguments must bind as if the function had been called directly."""
    arrived_args, arrived_kwargs = round_trip(every_kind, *args, **kwargs)
    assert called(*args, **kwargs) == called(*arrived_args, **arrived_kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        (("a@b.example",), {}, "missing a required argument: 'template'"),
        (("a@b.example", "x", "y"), {}, "too many positional arguments"),
        (("a@b.example", "x"), {"colour": 1}, "got an unexpected keyword argument 'colour'"),
        (("a@b.example",), {"to": "c@d.example", "template": "x"}, "multiple values for argument 'to'"),
    ],
)
def test_a_call_that_does_not_bind_is_refused_with_the_signature(
    args: tuple[object, ...], kwargs: dict[str, object], words: str
) -> None:
    """The producer must see what the handler takes, not find the task among the discarded."""
    assert f"send_mail(to: str, template: str): {words}" == refused(Arguments.of(send_mail), *args, **kwargs)


def test_positional_only_arguments_are_refused_by_name() -> None:
    """What Python refuses must not be let through because it travels by name."""
    assert "'first' parameter is positional only" in refused(Arguments.of(every_kind), first=1)


def test_an_extra_keyword_may_not_take_the_name_of_a_positional_argument() -> None:
    """Both would be the same key of the body, and one would silently win."""
    assert "keyword argument 'first' has the name of a positional one" in refused(Arguments.of(every_kind), 1, first=2)
    assert "keyword argument 'rest' has the name of a positional one" in refused(Arguments.of(every_kind), 1, rest=2)


@pytest.mark.parametrize(
    ("annotation", "value", "words"),
    [
        (str, 5, "argument $.value: expected str, got int"),
        (int, 1.0, "argument $.value: expected int, got float"),
        (int, None, "argument $.value: expected int, got null"),
        (list[Address], [Address("Ring"), {"street": 5}], "argument $.value[1].street: expected str, got int"),
        (Colour, "green", "argument $.value: invalid enum value 'green'"),
        (dict[int, int], {"a": 1}, "argument $.value (a key): expected int, got str"),
        (float, float("nan"), "argument $.value: expected a finite number"),
        (Any, {"deep": [1.0, float("inf")]}, "argument $.value.deep[1]: expected a finite number"),
        (Address | None, Address("Ring", float("nan")), "argument $.value.number: expected a finite number"),  # type: ignore[arg-type]
        (str, "\ud800", "argument $.value: its text is not valid Unicode"),
        (Any, {1: Opaque()}, "argument $.value: encoding objects of type Opaque is unsupported"),
        (Any, {(1, 2): 3}, "argument $.value: only dicts with str-like or number-like keys are supported"),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(annotation: Any, value: object, words: str) -> None:
    """One wrong value among hundreds must be found without a debugger."""

    def handler(value: Any, other: int = 0) -> None: ...

    handler.__annotations__["value"] = annotation
    assert f"handler: {words}" in refused(Arguments.of(handler), value)


def test_a_value_that_contains_itself_is_refused() -> None:
    """It must not take the producer down with a RecursionError."""
    loop: list[object] = []
    loop.append(loop)
    assert "argument $.a: it is nested too deeply, or contains itself" in refused(Arguments.of(lambda a: a), loop)


def test_variadic_values_are_checked_one_by_one() -> None:
    """`*args` and `**kwargs` have annotations too."""
    arguments = Arguments.of(every_kind)
    assert "argument $.rest[1]: expected int, got str" in refused(arguments, 1, 2, 3, "4")
    assert "argument $.x: expected int, got list" in refused(arguments, 1, x=[]).replace("array", "list")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"to":1,"template":"x"}', "send_mail: argument $.to: expected str, got int"),
        (b'{"to":"a"}', "send_mail(to: str, template: str): missing a required argument: 'template'"),
        (b'{"to":"a","template":"b","x":1}', "send_mail(to: str, template: str): got an unexpected keyword argument"),
        (b"[1]", "send_mail: arguments: expected object, got array"),
        (b'{"to":"a"', "send_mail: arguments: input data was truncated"),
        (b'{"to":"\xff","template":""}', "send_mail: arguments: its text is not valid Unicode"),
        (b'{"to":NaN}', "send_mail: arguments: JSON is malformed"),
        (b"[" * 100_000, "send_mail: arguments: "),
        (b"", "send_mail: arguments: input data was truncated"),
    ],
)
def test_a_body_from_elsewhere_is_checked(body: bytes, words: str) -> None:
    """Producers in other languages write bodies by hand; a stored body may be older than the handler's signature."""
    arguments = Arguments.of(send_mail)
    for look in (arguments.check, arguments.decode):
        with pytest.raises(ArgumentError) as caught:
            look(body)
        assert str(caught.value).startswith(words)


@given(st.binary() | JSON.map(msgspec.json.encode))
def test_whatever_the_body_only_an_argument_error_comes_out(body: bytes) -> None:
    """A hostile body must not reach the engine as an exception nobody expects."""
    for fn in (send_mail, block, every_kind, nothing):
        arguments = Arguments.of(fn)
        for look in (arguments.check, arguments.decode):
            try:
                look(body)
            except ArgumentError:
                pass


def test_defaults_are_those_of_the_code_that_runs() -> None:
    """A default changed between enqueue and run must apply: the caller did not choose a value."""
    tags: list[str] = ["a"]

    def before(to: str, copies: int = 1, *, tags: list[str] = tags) -> None: ...
    def after(to: str, copies: int = 9, *, tags: list[str] = tags) -> None: ...

    body = Arguments.of(before).encode(("a",), {})
    assert body == b'{"to":"a"}'
    args, kwargs = Arguments.of(after).decode(body)
    assert ((), {"to": "a", "copies": 9, "tags": tags}) == (args, kwargs)
    assert kwargs["tags"] is tags
    assert Arguments.of(before).encode(("a", 1), {}) == b'{"to":"a","copies":1}'


def test_a_raw_body_is_taken_as_it_is() -> None:
    """Bodies arrive as slices of a frame; copying each would cost more than reading it."""
    arguments = Arguments.of(send_mail)
    raw = msgspec.json.decode(b'[{"to":"a","template":"b"}]', type=list[msgspec.Raw])[0]
    arguments.check(raw)
    assert arguments.decode(raw) == (("a", "b"), {})


def test_no_arguments_are_an_empty_object() -> None:
    """A body is always an object."""
    assert Arguments.of(nothing).encode((), {}) == b"{}"
    assert Arguments.of(nothing).decode(b"{}") == ((), {})


class Methods:
    def bound(self, a: int) -> None: ...

    def __call__(self, a: int) -> None: ...


@functools.wraps(send_mail)
def wrapped(*args: object, **kwargs: object) -> None: ...


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (Methods().bound, (1,)),
        (Methods(), (1,)),
        (functools.partial(every_kind, 1), (1,)),
        (wrapped, ("a", "b")),
        (lambda __a, __b=2: None, (1,)),
    ],
)
def test_every_kind_of_callable_is_read(fn: Callable[..., object], args: tuple[object, ...]) -> None:
    """Decorators, methods and partials are how applications are really written."""
    arguments = Arguments.of(fn)
    assert args == arguments.decode(arguments.encode(args, {}))[0][: len(args)]


def unresolved(a: Missing) -> None: ...
def opaque(a: Opaque) -> None: ...
def holding(a: int, b: dict[str, list[Holder]]) -> None: ...
def two_lists(a: list[int] | set[int]) -> None: ...
def only_the_result_is_unresolved(a: int) -> Missing: ...


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (unresolved, "unresolved: the annotation of parameter a cannot be resolved (name 'Missing' is not defined)"),
        (opaque, "opaque: parameter a cannot be sent as JSON: nothing says how to write a "),
        (holding, "holding: parameter b cannot be sent as JSON: nothing says how to write a "),
        (two_lists, "two_lists: parameter a cannot be sent as JSON: Type unions may not contain more than one"),
        (type, "type: its parameters cannot be read"),
    ],
)
def test_an_annotation_that_cannot_travel_is_refused_at_declaration(fn: Callable[..., object], words: str) -> None:
    """It would otherwise fail on the first value, in production, in the middle of a job."""
    with pytest.raises(UsageError) as caught:
        Arguments.of(fn)
    assert str(caught.value).startswith(words)


def test_the_result_annotation_does_not_matter() -> None:
    """Results are not stored; a type imported for type checkers only must not stop the program."""
    assert Arguments.of(only_the_result_is_unresolved).encode((1,), {}) == b'{"a":1}'


def test_errors_use_the_registered_name() -> None:
    """People search for the name the handler is registered under."""
    assert refused(Arguments.of(nothing, name="mail.nothing"), 1).startswith("mail.nothing()")
