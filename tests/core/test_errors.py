"""Errors travel, and arrive as what they were."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core import errors
from shoestring.core.errors import (
    BY_CODE,
    ArgumentError,
    LimitExceeded,
    LocalProtocolError,
    PartlyStored,
    ProtocolError,
    QueueFull,
    Refused,
    ShoestringError,
    SourceFailed,
    rebuild,
)
from shoestring.core.wire import encode_error, parse_response

#: Those with fields of their own; all others take a message only.
WITH_FIELDS: dict[type[ShoestringError], ShoestringError] = {
    ArgumentError: ArgumentError("block: item $[3]: expected int, got str", index=3),
    Refused: Refused("not now", retry_after=1.5),
    LimitExceeded: LimitExceeded("alice has spent her tokens", retry_after=60.0, tokens=0.25, capacity=15.0),
    QueueFull: QueueFull("queue mail is full", retry_after=2.0, depth=1_000, limit=1_000),
    SourceFailed: SourceFailed("the source of job 7 failed", job_id=7, stored=5_000),
}


def tree(root: type[ShoestringError]) -> Iterator[type[ShoestringError]]:
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


KINDS = [kind for kind in tree(ShoestringError) if kind.__module__ == errors.__name__]


def example_of(kind: type[ShoestringError]) -> ShoestringError:
    return WITH_FIELDS[kind] if kind in WITH_FIELDS else kind("what happened; the data is safe; what to do next")


def over_the_wire(error: ShoestringError) -> ShoestringError:
    arrived = parse_response(encode_error(1, error).rstrip(b"\n")).error
    assert arrived is not None
    return arrived


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_arrives_as_what_it_was(kind: type[ShoestringError]) -> None:
    """A producer writes `except QueueFull`, whether the queue is in its process or behind a socket."""
    sent = example_of(kind)
    arrived = over_the_wire(sent)
    # ProtocolError and its local kind share JSON-RPC's code for an invalid request.
    assert type(arrived) is (LocalProtocolError if kind is ProtocolError else kind)
    assert isinstance(arrived, kind)
    assert (str(arrived), arrived.data()) == (str(sent), sent.data())
    assert vars(arrived) == vars(sent)


@given(st.sampled_from(KINDS), st.text())
def test_any_message_arrives_unchanged(kind: type[ShoestringError], message: str) -> None:
    """Messages quote what users typed."""
    assert str(over_the_wire(rebuild(kind.code, message, example_of(kind).data()))) == message


def test_no_two_errors_travel_under_one_code() -> None:
    """The second would arrive as the first."""
    codes = [kind.code for kind in KINDS if kind is not ProtocolError]
    assert len(codes) == len(set(codes))
    assert {kind for kind in KINDS if kind is not ProtocolError} == set(BY_CODE.values())


def test_codes_are_those_json_rpc_leaves_free_or_gives_this_meaning() -> None:
    """-32000 to -32099 are the server's own; outside of them only codes defined by JSON-RPC 2.0 may be used."""
    defined = {-32700, -32600, -32601, -32602}
    assert all(-32099 <= kind.code <= -32000 or kind.code in defined for kind in KINDS)


def test_exit_codes_are_the_documented_ones() -> None:
    """Scripts and systemd decide by them."""
    assert {kind.exit_code for kind in KINDS} <= {1, 2, 3, 4, 5, 74, 78}
    assert {kind.__name__: kind.exit_code for kind in KINDS if kind.exit_code != 1} == {
        "UsageError": 2,
        "ArgumentError": 2,
        "PayloadTooLarge": 2,
        "UnknownHandler": 2,
        "ConfigError": 78,
        "NotFound": 5,
        "AlreadyOwned": 4,
        "StorageError": 74,
        "DiskFull": 74,
        "DatabaseDamaged": 74,
        "DatabaseNewer": 78,
        "Unavailable": 3,
    }


@pytest.mark.parametrize("data", [{}, {"retry_after": 1.0}, {"message": "x"}, {"from": "a newer daemon"}, {"self": 1}])
def test_an_error_whose_fields_do_not_fit_still_arrives(data: dict[str, object]) -> None:
    """Client and daemon may be of different versions: the message counts, and another exception would hide it."""
    arrived = rebuild(QueueFull.code, "full", data)
    assert isinstance(arrived, ShoestringError)
    assert str(arrived) == "full"


def test_an_unknown_code_becomes_the_plain_error() -> None:
    """A newer daemon may know errors this client does not."""
    assert type(rebuild(-1, "new", {})) is ShoestringError


def test_what_was_stored_of_many_stays_with_the_client() -> None:
    """Receipts mean something only where they were handed out."""
    assert PartlyStored("3 of 5 are stored", results=[1, 2]).data() == {}


def test_the_tree_in_the_text_is_the_tree() -> None:
    """It is the first thing a reader of the module sees."""
    text = ast.get_docstring(ast.parse(inspect.getsource(errors))) or ""
    drawn = {}
    for line in text.splitlines():
        bare = line.lstrip("│├└─ ")
        if line.startswith(("    ", "│", "├", "└")) and bare and bare.split()[0] in vars(errors):
            drawn[bare.split()[0]] = (len(line) - len(bare)) // 4
    depths = {
        kind.__name__: len([base for base in kind.__mro__ if issubclass(base, ShoestringError)]) for kind in KINDS
    }
    root = depths["ShoestringError"]
    assert {name: depth - root for name, depth in depths.items()} == {
        name: depth - drawn["ShoestringError"] for name, depth in drawn.items()
    }
