"""The items of a fan-out, and what they share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.errors import ArgumentError, UsageError
from shoestring.core.signature import Arguments


def block(target: int, *, account: str, force: bool = False) -> None: ...
def block_all(targets: list[int], account: str) -> None: ...
def block_some(targets: Sequence[int]) -> None: ...
def block_collection(targets: Collection[int]) -> None: ...
def block_any(targets) -> None: ...  # type: ignore[no-untyped-def]
def block_list(targets: list) -> None: ...  # type: ignore[type-arg]
def each(*targets: int, **shared: str) -> None: ...
def followers(cursor: str | None, *, account: str) -> None: ...
def stored(cursor: str | None, account: str, /) -> None: ...
def two_in_place(target: int, account: str, /) -> None: ...
def named_only(*, account: str) -> None: ...


@given(st.lists(st.integers(), max_size=100))
def test_items_come_back_in_order(items: list[int]) -> None:
    """A chunk's set of items not yet done is kept by position."""
    arguments = Arguments.of(block)
    assert items == arguments.decode_items(arguments.encode_items(items))
    assert items == arguments.decode_items(arguments.encode_items(tuple(items)))


def test_a_range_is_a_sequence_of_items() -> None:
    """Not every sequence is a list."""
    arguments = Arguments.of(block)
    assert arguments.decode_items(arguments.encode_items(range(3))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("item", "words"),
    [
        ("x", "block: item $[2]: expected int, got str"),
        (None, "block: item $[2]: expected int, got null"),
        (float("nan"), "block: item $[2]: expected a finite number"),
        (object(), "block: item $[2]: encoding objects of type object is unsupported"),
        ("\ud800", "block: item $[2]: its text is not valid Unicode"),
        ({"a": 1}, "block: item $[2]: expected int, got object"),
    ],
)
def test_a_bad_item_is_named_by_its_place(item: object, words: str) -> None:
    """One wrong item in a streamed million must be found, and the ones before it are already stored."""
    with pytest.raises(ArgumentError) as caught:
        Arguments.of(block).encode_items([0, 1, item, 3, "also wrong"])
    assert str(caught.value).startswith(words)
    assert caught.value.index == 2


def test_a_silent_nan_among_unannotated_items_is_found() -> None:
    """msgspec writes NaN as null; the handler would be called with None."""
    with pytest.raises(ArgumentError, match=r"item \$\[1\]\.x: expected a finite number") as caught:
        Arguments.of(block_any).encode_items([None, {"x": float("nan")}])
    assert caught.value.index == 1


@pytest.mark.parametrize(("body", "index"), [(b"[1,2,null]", 2), (b"{}", None), (b"[1", None), (b'["\xff"]', 0)])
def test_items_from_elsewhere_are_checked(body: bytes, index: int | None) -> None:
    """Producers in other languages append items too."""
    with pytest.raises(ArgumentError) as caught:
        Arguments.of(block).decode_items(body)
    assert index == caught.value.index


@pytest.mark.parametrize("fn", [block_all, block_some, block_collection])
def test_a_batch_handler_declares_the_type_of_its_items(fn: Callable[..., object]) -> None:
    """With `batch=True` the annotation is of the list; the items are checked one by one all the same."""
    arguments = Arguments.of(fn, batch=True)
    assert arguments.decode_items(arguments.encode_items([1, 2])) == [1, 2]
    with pytest.raises(ArgumentError, match=r"item \$\[0\]: expected int, got str"):
        arguments.encode_items(["x"])


@pytest.mark.parametrize("fn", [block_any, block_list])
def test_a_batch_handler_without_item_type_takes_any_json(fn: Callable[..., object]) -> None:
    """Annotations are optional."""
    arguments = Arguments.of(fn, batch=True)
    assert arguments.decode_items(arguments.encode_items([1, "x", None])) == [1, "x", None]


def test_a_batch_handler_that_declares_no_list_is_refused() -> None:
    """It would be given a list where it says it takes one item."""
    with pytest.raises(UsageError, match=r"parameter target is annotated int; annotate it list\[\.\.\.\]"):
        Arguments.of(block, batch=True)


def test_shared_arguments_are_everything_but_the_item() -> None:
    """They are stored once per job, whatever its millions of items."""
    arguments = Arguments.of(block)
    assert arguments.item_name == "target"
    body = arguments.encode_shared({"account": "troll"})
    assert body == b'{"account":"troll"}'
    arguments.check_shared(body)
    assert arguments.decode_shared(body) == {"account": "troll", "force": False}


def test_shared_arguments_may_be_positional_parameters() -> None:
    """Most handlers are written without a star; what is shared goes by name."""
    arguments = Arguments.of(block_all, batch=True)
    assert arguments.decode_shared(arguments.encode_shared({"account": "troll"})) == {"account": "troll"}


def test_shared_extra_keywords_are_kept() -> None:
    """`**kwargs` handlers can be fanned out to as well."""
    arguments = Arguments.of(each)
    assert arguments.item_name == "targets"
    assert arguments.decode_shared(arguments.encode_shared({"account": "troll"})) == {"account": "troll"}
    assert arguments.decode_items(arguments.encode_items([1])) == [1]


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({}, r"block\(\*, account: str, force: bool = False\): missing a required argument: 'account'"),
        ({"account": 5}, r"block: argument \$\.account: expected str, got int"),
        ({"account": "troll", "target": 1}, "unexpected keyword argument 'target'"),
    ],
)
def test_wrong_shared_arguments_are_refused(kwargs: dict[str, object], words: str) -> None:
    """They would fail every item of the job."""
    with pytest.raises(ArgumentError, match=words):
        Arguments.of(block).encode_shared(kwargs)


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (named_only, "give it a first parameter for the item"),
        (two_in_place, "'account' is positional-only; move it behind the '/'"),
    ],
)
def test_a_handler_that_takes_no_item_cannot_be_fanned_out_to(fn: Callable[..., object], words: str) -> None:
    """It can be enqueued; the fan-out says what is missing."""
    arguments = Arguments.of(fn)
    for attempt in (
        lambda: arguments.encode_items([1]),
        lambda: arguments.decode_items(b"[1]"),
        lambda: arguments.encode_shared({"account": "a"}),
        lambda: arguments.check_shared(b"{}"),
        lambda: arguments.decode_shared(b"{}"),
    ):
        with pytest.raises(UsageError, match=words):
            attempt()


def test_a_source_keeps_its_cursor_to_itself() -> None:
    """The puller calls `fn(cursor, *args, **kwargs)`; the caller of `.of()` gives all but the cursor."""
    arguments = Arguments.of(followers, skip_item=True)
    body = arguments.encode((), {"account": "troll"})
    assert body == b'{"account":"troll"}'
    assert arguments.decode(body) == ((), {"account": "troll"})
    with pytest.raises(ArgumentError, match="unexpected keyword argument 'cursor'"):
        arguments.encode((), {"account": "troll", "cursor": "5"})


def test_a_source_may_take_its_arguments_by_position() -> None:
    """What follows the cursor is an ordinary call."""
    arguments = Arguments.of(stored, skip_item=True)
    assert arguments.decode(arguments.encode(("troll",), {})) == (("troll",), {})


def test_a_first_argument_that_cannot_be_given_is_refused() -> None:
    """A source is called with a cursor and a batch handler with a list: there must be a place for it."""
    with pytest.raises(UsageError, match="called with the cursor first; give it a positional parameter for that"):
        Arguments.of(named_only, skip_item=True)
    with pytest.raises(UsageError, match="called with the list of items first; give it a positional parameter"):
        Arguments.of(named_only, batch=True)
