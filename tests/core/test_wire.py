"""Bytes from outside become requests, or one kind of error."""

from __future__ import annotations

import json
from collections import deque
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shoestring.core.errors import (
    ArgumentError,
    LocalProtocolError,
    NotFound,
    QueueFull,
    RemoteProtocolError,
    ShoestringError,
)
from shoestring.core.wire import (
    Framer,
    encode_error,
    encode_request,
    encode_result,
    parse_request,
    parse_response,
)

HEAD = b'{"jsonrpc":"2.0","method":"enqueue","id":1,"params":'


def framed(params: bytes) -> bytes:
    return HEAD + params + b"}"


def refusal(line: bytes) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        parse_request(line)
    return str(caught.value)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[begin:end] for begin, end in pairwise(places)]


LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=8)
CUTS = st.lists(st.integers(0, 400), max_size=20)


@given(LINES, CUTS, st.binary(max_size=10).map(lambda line: line.replace(b"\n", b"")))
def test_any_split_of_the_bytes_gives_the_same_lines(lines: list[bytes], cuts: list[int], begun: bytes) -> None:
    """A socket hands over what it has; where it cut must not matter."""
    framer = Framer(30)
    found: list[bytes] = []
    for part in split(b"".join(line + b"\n" for line in lines) + begun, cuts):
        found += framer.feed(part)
    assert found == [line for line in lines if line]
    assert framer.pending == bool(begun)
    assert framer.feed(b"\n") == ([begun] if begun else [])


@given(st.integers(0, 20), st.integers(1, 20), CUTS, st.booleans())
def test_a_line_over_the_limit_is_refused_however_it_comes(limit: int, over: int, cuts: list[int], ends: bool) -> None:
    """The limit holds before the line is complete: a peer must not fill the memory with a line that never ends."""
    framer = Framer(limit)
    parts = split(b"x" * (limit + over) + (b"\n{}\n" if ends else b""), cuts)
    with pytest.raises(RemoteProtocolError, match=f"longer than the {limit} bytes"):
        deque(map(framer.feed, parts))
    with pytest.raises(RemoteProtocolError):
        framer.feed(b"{}\n")


def test_a_line_of_exactly_the_limit_is_taken() -> None:
    """A limit is what may be, not what may not."""
    assert Framer(5).feed(b"12345\n12345\n") == [b"12345", b"12345"]


def test_a_line_that_comes_byte_by_byte_is_not_copied_each_time() -> None:
    """Quadratic work per byte is how one slow client stops everybody; this would take minutes."""
    framer = Framer(1 << 20)
    for _ in range(1 << 18):
        framer.feed(b"x")
    assert framer.feed(b"\n") == [b"x" * (1 << 18)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.text(max_size=5), JSON, max_size=4)
IDS = st.none() | st.integers(-(2**63), 2**63) | st.text(max_size=5)


@given(st.text(max_size=10), OBJECTS, IDS)
def test_a_request_arrives_as_it_was_sent(method: str, params: dict[str, Any], id: int | str | None) -> None:
    """The wire adds nothing and takes nothing away."""
    (line,) = Framer(1 << 20).feed(encode_request(id, method, params))
    request = parse_request(line)
    assert (request.method, request.id, msgspec.json.decode(request.params)) == (method, id, params)


@given(OBJECTS, IDS, st.sampled_from([{}, {"ensure_ascii": False}, {"indent": 1}, {"separators": (",", ":")}]))
def test_any_correct_way_to_write_json_is_taken(params: dict[str, Any], id: int | str | None, style: Any) -> None:
    """Other languages put blanks, escapes and exponents where they like."""
    frame = {"id": id, "params": params, "jsonrpc": "2.0", "method": "x"}
    request = parse_request(json.dumps(frame, **style).encode().replace(b"\n", b" "))
    assert (request.method, request.id, msgspec.json.decode(request.params)) == ("x", id, params)


@given(JSON, IDS)
def test_an_answer_arrives_as_it_was_sent(result: Any, id: int | str | None) -> None:
    """`null` is a result too."""
    response = parse_response(encode_result(id, result).rstrip(b"\n"))
    assert response.result is not None
    assert (response.id, msgspec.json.decode(response.result), response.error) == (id, result, None)


def test_an_error_arrives_as_the_error_it_was() -> None:
    """A producer catches QueueFull and looks at `retry_after`, wherever the queue is."""
    sent = QueueFull("queue mail is full", retry_after=1.5, depth=10, limit=10)
    response = parse_response(encode_error("a", sent).rstrip(b"\n"))
    assert response.id == "a"
    assert response.result is None
    assert isinstance(response.error, QueueFull)
    assert (str(response.error), response.error.retry_after) == ("queue mail is full", 1.5)


def test_an_error_text_that_is_no_text_arrives_all_the_same() -> None:
    """A file name may hold bytes that are not UTF-8; the error about it must not become another error."""
    response = parse_response(encode_error(1, NotFound("no file caf\udce9")).rstrip(b"\n"))
    assert str(response.error) == "no file caf\\udce9"


def test_an_error_without_data_or_of_an_unknown_code_is_still_an_error() -> None:
    """A newer daemon may know errors that this client does not."""
    response = parse_response(b'{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"new","data":{"more":[1]}}}')
    assert type(response.error) is ShoestringError
    assert str(response.error) == "new"
    response = parse_response(b'{"jsonrpc":"2.0","id":1,"error":{"code":-32010,"message":"no","data":null}}')
    assert type(response.error) is ArgumentError


HOSTILE = {
    "deep": (framed(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"), "nested too deeply"),
    "deep and unclosed": (framed(b'{"a":' + b"[" * 400_000), "nested too deeply"),
    "deep objects": (framed(b'{"a":' * 100_000 + b"1" + b"}" * 100_000), "nested too deeply"),
    "many digits": (framed(b'{"a":' + b"1" * 5_000 + b"}"), "out of range"),
    "NaN": (framed(b'{"a":NaN}'), "JSON is malformed: invalid character (byte 57)"),
    "Infinity": (framed(b'{"a":-Infinity}'), "JSON is malformed"),
    "number over a float": (framed(b'{"a":1e400}'), "number out of range"),
    "twins": (framed(b'{"to":1,"x":2,"to":3}'), "the key 'to' stands twice in one object (of to, x)"),
    "twins written two ways": (framed(b'{"to":1,"\\u0074o":3}'), "the key 'to' stands twice"),
    "twins far inside": (framed(b'{"tasks":[["a",{"b":[{"c":1,"c":1}]}]]}'), "the key 'c' stands twice"),
    "twins at the top": (b'{"jsonrpc":"2.0","method":"a","method":"b"}', "the key 'method' stands twice"),
    "twins beside blanks": (framed(b'{ "a" : 1 , "a" : 2 }'), "the key 'a' stands twice"),
    "lone surrogate": (framed(b'{"a":"\\ud800"}'), "the frame was not carried out"),
    "lone low surrogate": (framed(b'{"a":"\\udc00x"}'), "the frame was not carried out"),
    "surrogate as a key": (framed(b'{"\\ud800":1}'), "the frame was not carried out"),
    "not UTF-8": (framed(b'{"a":"\xff"}'), "not valid Unicode"),
    "surrogate in UTF-8": (framed(b'{"a":"\xed\xa0\x80"}'), "not valid Unicode"),
    "overlong UTF-8": (framed(b'{"a":"\xc0\xaf"}'), "not valid Unicode"),
    "NUL": (framed(b'{"a":"\x00"}'), "JSON is malformed"),
    "NUL between": (framed(b'{"a":1}\x00'), "JSON is malformed"),
    "many objects": (framed(b'{"a":[' + b"{}," * 600_000 + b"{}]}"), "more than 500,000 arrays and objects"),
    "UTF-16": ('{"jsonrpc":"2.0","method":"a"}'.encode("utf-16"), "the frame was not carried out"),
    "byte order mark": (b"\xef\xbb\xbf" + framed(b"{}"), "JSON is malformed"),
    "two objects": (framed(b"{}") + framed(b"{}"), "trailing characters"),
    "cut off": (framed(b"{}")[:-1], "input data was truncated"),
    "trailing comma": (framed(b'{"a":1,}'), "JSON is malformed"),
    "comment": (framed(b"{/**/}"), "JSON is malformed"),
    "single quotes": (framed(b"{'a':1}"), "JSON is malformed"),
    "HTTP": (b"POST / HTTP/1.1\r", "JSON is malformed"),
    "empty": (b"", "input data was truncated"),
    "no object": (b"5", "expected object, got int"),
    "a batch": (b'[{"jsonrpc":"2.0","method":"a"}]', "expected object, got array"),
    "no version": (b'{"method":"a"}', "object missing required field jsonrpc"),
    "another version": (b'{"jsonrpc":"1.0","method":"a"}', "invalid enum value '1.0' at $.jsonrpc"),
    "no method": (b'{"jsonrpc":"2.0"}', "object missing required field method"),
    "method of a wrong type": (b'{"jsonrpc":"2.0","method":5}', "expected str, got int at $.method"),
    "params of a wrong type": (framed(b"[1]"), "params must be an object"),
    "params of null": (framed(b"null"), "params must be an object"),
    "id of a wrong type": (b'{"jsonrpc":"2.0","method":"a","id":1.5}', "expected int | str | null, got float at $.id"),
    "id of a truth": (b'{"jsonrpc":"2.0","method":"a","id":true}', "expected int | str | null, got bool at $.id"),
    "an unknown member": (b'{"jsonrpc":"2.0","method":"a","parms":{}}', "object contains unknown field parms"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_frames_are_refused_with_the_reason(name: str) -> None:
    """A frame from a bug or an attacker costs its sender an answer, and nobody anything else."""
    line, words = HOSTILE[name]
    assert words in refusal(line)


@given(st.binary(max_size=200) | JSON.map(msgspec.json.encode) | OBJECTS.map(msgspec.json.encode).map(framed))
@example(b'{"jsonrpc":"2.0","error":{"code":1e3,"message":""}}')
def test_whatever_the_bytes_only_a_protocol_error_comes_out(line: bytes) -> None:
    """An exception nobody expects would end the connection, or the daemon."""
    for parse in (parse_request, parse_response):
        try:
            parse(line)
        except RemoteProtocolError:
            pass


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b'{"jsonrpc":"2.0","id":1}', "either a result or an error"),
        (b'{"jsonrpc":"2.0","id":1,"result":1,"error":{"code":1,"message":""}}', "either a result or an error"),
        (b'{"jsonrpc":"2.0","id":1,"error":{"code":"1","message":""}}', "expected int, got str at $.error.code"),
        (b'{"id":1,"result":1}', "missing required field jsonrpc"),
        (b"[]", "expected object, got array"),
    ],
)
def test_an_answer_that_is_none_is_refused(line: bytes, words: str) -> None:
    """Something else may listen on the socket's path."""
    with pytest.raises(RemoteProtocolError, match=r"^the answer cannot be read: ") as caught:
        parse_response(line)
    assert words in str(caught.value)


def test_what_cannot_be_sent_is_the_sender_s_error() -> None:
    """A raw body with a line's end in it would be two frames at the other side."""
    with pytest.raises(LocalProtocolError, match="a raw JSON body spans several lines"):
        encode_request(1, "enqueue", {"tasks": [["a", msgspec.Raw(b"{\n}")]]})
    with pytest.raises(LocalProtocolError, match="encoding objects of type object is unsupported"):
        encode_result(1, object())


def test_a_line_s_end_within_text_is_harmless() -> None:
    """JSON writes it as an escape."""
    frame = encode_request(1, "a\nb", {"c": "d\r\ne\u2028"})
    assert frame.count(b"\n") == 1
    assert parse_request(frame.rstrip(b"\n")).method == "a\nb"
