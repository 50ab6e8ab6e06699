"""What goes over a socket: JSON-RPC 2.0, one object per line, as pure functions from bytes to values and back.

    {"jsonrpc":"2.0","method":"ping","params":{},"id":1}\\n
    {"jsonrpc":"2.0","id":1,"result":{"version":"0.1.0"}}\\n
    {"jsonrpc":"2.0","id":1,"error":{"code":-32012,"message":"...","data":{}}}\\n

`Framer` cuts a stream into lines and refuses a line that is too long before all of it has come. `parse_request`
believes nothing: what it returns holds neither a key twice (whichever reader comes later would pick its own), nor
NaN, numbers beyond a float, lone surrogates, bytes that are not UTF-8, or nesting that exhausts a stack; and what it
takes to hold it is bounded. Everything wrong is a RemoteProtocolError; no other exception leaves this module for
bytes from outside.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec
from msgspec import Raw

from shoestring.core.errors import LocalProtocolError, RemoteProtocolError, ShoestringError, rebuild
from shoestring.core.misfit import MISFITS, told

Id = int | str

#: An empty list takes three bytes on the wire and 56 in memory. A frame of nothing else would take 20 times its size.
_CONTAINERS_MAX: Final = 500_000


class Framer:
    """Cuts what comes in into lines, however it was split on the way.

    >>> framer = Framer(100)
    >>> framer.feed(b'{"a":1}\\n{"b"'), framer.feed(b':2}\\n')
    ([b'{"a":1}'], [b'{"b":2}'])
    """

    __slots__ = ("_begun", "_limit_bytes", "_overrun")

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        # Grows in place: a line that comes byte by byte costs neither a copy nor an object for each.
        self._begun = bytearray()
        self._overrun = False

    @property
    def pending(self) -> bool:
        """Whether a line has begun that has not ended."""
        return bool(self._begun)

    def feed(self, data: bytes) -> list[bytes]:
        """Return the lines that `data` completes, without their ends; empty lines are left out.

        Raises RemoteProtocolError once a line is over the limit, complete or not. The connection is then of no use:
        where the next line begins is not known, and lines before it in the same bytes are not returned.
        """
        if self._overrun:
            raise self._too_long()
        short = len(self._begun) + len(data) <= self._limit_bytes
        lines = data.split(b"\n")
        rest = lines.pop()
        if lines and self._begun:
            self._begun += lines[0]
            lines[0] = bytes(self._begun)
            self._begun = bytearray()
        self._begun += rest
        if not short and max(len(self._begun), *map(len, lines), 0) > self._limit_bytes:
            self._overrun = True
            self._begun = bytearray()
            raise self._too_long()
        return lines if all(lines) else [line for line in lines if line]

    def _too_long(self) -> RemoteProtocolError:
        return RemoteProtocolError(
            f"a line is longer than the {self._limit_bytes:,} bytes a frame may have; nothing of it was carried out; "
            "send fewer tasks or items in one frame"
        )


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """One call. Without `id` it is a notification: carried out, not answered."""

    jsonrpc: Literal["2.0"]
    method: str
    params: Raw = Raw(b"{}")
    id: Id | None = None


class Response(msgspec.Struct, frozen=True):
    """The answer to the request of that `id`; None if that could not be read. Either a result or an error."""

    id: Id | None
    result: Raw | None = None
    error: ShoestringError | None = None


class _RequestFrame(msgspec.Struct, frozen=True, gc=False):
    jsonrpc: str
    method: str
    params: object
    id: Id | msgspec.UnsetType


class _ResultFrame(msgspec.Struct, frozen=True, gc=False):
    jsonrpc: str
    id: Id | None
    result: object


class _ErrorFrame(msgspec.Struct, frozen=True):
    code: int
    message: str
    data: dict[str, object] | None = None


class _ResponseFrame(msgspec.Struct, frozen=True):
    jsonrpc: Literal["2.0"]
    id: Id | None = None
    result: Raw = Raw()
    error: _ErrorFrame | None = None


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_request: Final = msgspec.json.Decoder(Request).decode
_response: Final = msgspec.json.Decoder(_ResponseFrame).decode


def parse_request(line: bytes) -> Request:
    """Return the request in a frame; raise RemoteProtocolError saying what is wrong with it and where.

    >>> request = parse_request(b'{"jsonrpc":"2.0","method":"ping","id":1}')
    >>> request.method, bytes(request.params), request.id
    ('ping', b'{}', 1)
    """
    if len(line) > _CONTAINERS_MAX and line.count(b"[") + line.count(b"{") > _CONTAINERS_MAX:
        raise RemoteProtocolError(
            f"the frame was not carried out: it has more than {_CONTAINERS_MAX:,} arrays and objects; send fewer "
            "tasks in one frame"
        )
    try:
        request = _request(line)
        # Written again as it was read, a frame without a key in twice is itself, if its sender writes as we do: that
        # takes half the time of looking at every object. It also reads every string and number: up to here, those
        # within `params` were only skipped over.
        frame = _decode(line)
        if _encode(frame) != line:
            _look_through(line)
    except MISFITS as error:
        what, path = told(error)
        raise RemoteProtocolError(f"the frame was not carried out: {what}{f' at {path}' if path else ''}") from None
    if type(frame.get("params", frame)) is not dict:
        raise RemoteProtocolError("the frame was not carried out: params must be an object, with arguments by name")
    return request


def parse_response(line: bytes) -> Response:
    """Return the response in a frame; its error is the one the other end raised."""
    try:
        frame = _response(line)
    except MISFITS as error:
        what, path = told(error)
        raise RemoteProtocolError(f"the answer cannot be read: {what}{f' at {path}' if path else ''}") from None
    has_result = len(memoryview(frame.result)) > 0
    if has_result == (frame.error is not None):
        raise RemoteProtocolError("the answer cannot be read: it must have either a result or an error")
    if frame.error is None:
        return Response(frame.id, frame.result)
    return Response(frame.id, None, rebuild(frame.error.code, frame.error.message, frame.error.data or {}))


def encode_request(id: Id | None, method: str, params: object) -> bytes:
    """Return the frame of one call; `params` encodes to an object. Without `id` nobody answers.

    >>> encode_request(1, "ping", {})
    b'{"jsonrpc":"2.0","method":"ping","params":{},"id":1}\\n'
    """
    return _framed(_RequestFrame("2.0", method, params, msgspec.UNSET if id is None else id))


def encode_result(id: Id | None, result: object) -> bytes:
    """Return the frame that answers request `id`.

    >>> encode_result(1, [1, 2])
    b'{"jsonrpc":"2.0","id":1,"result":[1,2]}\\n'
    """
    return _framed(_ResultFrame("2.0", id, result))


def encode_error(id: Id | None, error: ShoestringError) -> bytes:
    """Return the frame that answers request `id` with an error, whatever the error's text has in it."""
    # A file name in a message may hold bytes that are no text; JSON has no place for them.
    message = str(error).encode("utf-8", "backslashreplace").decode()
    return _framed(
        {"jsonrpc": "2.0", "id": id, "error": {"code": error.code, "message": message, "data": error.data()}}
    )


def _framed(frame: object) -> bytes:
    try:
        line = _encode(frame)
    except MISFITS as error:
        raise LocalProtocolError(f"this cannot be sent: {told(error)[0]}") from error
    if b"\n" in line:
        # Only a raw body, written by somebody else, can bring in a line's end.
        raise LocalProtocolError("this cannot be sent: a raw JSON body spans several lines; encode it on one")
    return line + b"\n"


def _look_through(line: bytes) -> None:
    """Raise RemoteProtocolError if an object in the frame has a key twice."""
    import json  # only senders in other languages cause this, and starting a producer should not pay for them

    json.loads(line.decode(), object_pairs_hook=_refuse_twins)


def _refuse_twins(members: list[tuple[str, object]]) -> None:
    keys = {key for key, _ in members}
    if len(keys) != len(members):
        seen: set[str] = set()
        twin = next(key for key, _ in members if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        beside = ", ".join(sorted(keys))
        raise RemoteProtocolError(
            f"the frame was not carried out: the key {twin[:100]!r} stands twice in one object (of {beside[:200]})"
        )
