"""Bytes of any kind through the framer and the parser, as a connection would put them through."""

from __future__ import annotations

import json
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.core.errors import RemoteProtocolError
from shoestring.core.wire import Framer, Request, parse_request

LIMIT_BYTES = 256

VALID = b'{"jsonrpc":"2.0","method":"enqueue","params":{"tasks":[["send_mail",{"to":"a","n":1.5e3}]]},"id":1}'
#: What JSON is made of, and what breaks it: random bytes alone hardly ever get past the first character.
SHARDS = [
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"\\", b" ", b"\t", b"\r", b"\n", b"\x00", b"\xff", b"null", b'"2.0"'),
    *(b"NaN", b"1e400", b"-0", b"1" * 100, b"\\ud800", b"\\u0000", b"\xed\xa0\x80", b"\xef\xbb\xbf", "é🜁".encode()),
    *(b'"params":', b'"id":', b'"a":1,', b'"a":1}', b"[" * 100, b'{"a":' * 40),
    b'{"jsonrpc":"2.0","method":"a","params":{',
    VALID,
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid frame with a few bytes changed, cut out or put in."""
    line = bytearray(VALID)
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(line)))
        end = min(len(line), begin + draw(st.integers(0, 5)))
        line[begin:end] = draw(st.binary(max_size=3) | st.sampled_from(SHARDS))
    return bytes(line)


STREAMS = st.lists(
    st.binary(max_size=60) | st.sampled_from(SHARDS) | damaged() | st.just(VALID + b"\n"), max_size=12
).map(b"".join)
CUTS = st.lists(st.integers(1, 100), min_size=1, max_size=10)


def connection(stream: bytes, cuts: list[int]) -> list[Request | str]:
    """Return what a connection that reads `stream` in pieces takes from it: requests, and the refusals it answers."""
    framer, taken, at = Framer(LIMIT_BYTES), list[Request | str](), 0
    while at < len(stream):
        size = cuts[len(taken) % len(cuts)]
        try:
            lines = framer.feed(stream[at : at + size])
        except RemoteProtocolError as error:
            return [*taken, str(error)]
        for line in lines:
            try:
                taken.append(parse_request(line))
            except RemoteProtocolError as error:
                taken.append(str(error))
        at += size
    return taken


@given(STREAMS, CUTS)
@example(VALID + b"\n" + VALID[:-1] + b"\n" + VALID + b"\n", [7])
def test_only_protocol_errors_come_of_arbitrary_bytes(stream: bytes, cuts: list[int]) -> None:
    """Any other exception would end a connection without an answer, or the daemon with it."""
    for taken in connection(stream, cuts):
        assert isinstance(taken, str) or bytes(taken.params).startswith(b"{")


@given(st.lists(damaged() | st.just(VALID), max_size=5).map(b"\n".join), CUTS)
def test_one_bad_line_does_not_hurt_the_next(stream: bytes, cuts: list[int]) -> None:
    """A line ends where its end is; a connection goes on after a bad one."""
    lines = [line for line in stream.split(b"\n") if line]
    if all(len(line) <= LIMIT_BYTES for line in lines):
        taken = connection(stream + b"\n", cuts)
        assert len(taken) == len(lines)
        for line, request in zip(lines, taken, strict=True):
            if line == VALID:
                assert isinstance(request, Request)


def strict(line: bytes, found: Callable[[], RemoteProtocolError]) -> object:
    """Read JSON as its grammar says and this protocol wants: the standard library, with its leniencies closed."""

    def no_twins(members: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(members)) != len(members):
            raise found()
        return dict(members)

    def no_constant(_: str) -> None:
        raise found()

    value = json.loads(line.decode(), object_pairs_hook=no_twins, parse_constant=no_constant)
    json.dumps(value, ensure_ascii=False).encode()  # lone surrogates do not encode
    return value


@given(damaged() | st.lists(st.sampled_from(SHARDS), max_size=8).map(b"".join))
def test_what_is_taken_is_what_another_reader_would_read(line: bytes) -> None:
    """Two readers that understand a frame differently are how checks are passed by."""
    try:
        request = parse_request(line)
    except RemoteProtocolError:
        return
    value = strict(line, lambda: RemoteProtocolError("the parser let a twin or a NaN through"))
    assert isinstance(value, dict)
    assert (request.method, request.id) == (value["method"], value.get("id"))
    assert json.loads(bytes(request.params)) == value.get("params", {})
