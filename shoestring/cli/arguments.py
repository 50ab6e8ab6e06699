"""From JSON somebody typed or piped to the entry that is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from shoestring.core.errors import ArgumentError, RemoteProtocolError, UsageError
from shoestring.core.model import DEFAULT_OPTIONS, Entry, Options
from shoestring.core.wire import parse_request

if TYPE_CHECKING:
    from shoestring.cli.session import Session
    from shoestring.core.signature import Arguments

_decode: Final = msgspec.json.Decoder(dict[str, msgspec.Raw] | list[msgspec.Raw]).decode
_decode_values: Final = msgspec.json.Decoder(list[object]).decode


class Reader:
    """Makes entries for one handler, all with the same options."""

    def __init__(self, session: Session, handler: str, options: Options) -> None:
        self._session = session
        self._handler = handler
        self._options = None if options == DEFAULT_OPTIONS else options
        self._signature: Arguments | None = None

    def typed(self, text: str) -> Entry:
        """Return the entry for arguments from the command line; raise ArgumentError if they are none."""
        # What the shell passed in another encoding than UTF-8 is kept by Python as surrogates: give the bytes back.
        return self.line(text.encode("utf-8", "surrogateescape"))

    def line(self, data: bytes) -> Entry:
        """Return the entry for one JSON document; raise ArgumentError if it is none."""
        try:
            given = _decode(data)
        except msgspec.ValidationError as error:
            raise ArgumentError(f"{self._handler}: {_cause(error)}. {_REMEDY}") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ArgumentError(f"{self._handler}: the arguments are not JSON: {_cause(error)}. {_REMEDY}") from error
        self._check_strictly(data)
        if b"\n" in data:
            data = msgspec.json.format(data, indent=-1)  # a frame is one line
        body = data if isinstance(given, dict) else self._named(data)
        return Entry(self._handler, msgspec.Raw(body), self._options)

    def _check_strictly(self, data: bytes) -> None:
        """Refuse what the daemon would refuse a whole frame of lines for, such as a key that stands twice."""
        try:
            parse_request(b'{"jsonrpc":"2.0","method":"","params":{"":%b}}' % data)
        except RemoteProtocolError as error:
            what = str(error).partition(": ")[2]
            raise ArgumentError(f"{self._handler}: {what}. Nothing was stored. Correct the arguments.") from error

    def _named(self, data: bytes) -> bytes:
        """Return arguments by position as the object of arguments by name that travels."""
        if self._signature is None:
            self._signature = self._find_signature()
        return self._signature.encode(tuple(_decode_values(data)), {})

    def _find_signature(self) -> Arguments:
        config = self._session.config
        if config.app is None:
            raise UsageError(
                f"{self._handler}: an array gives arguments by position, and their names are in the app, which is not"
                " set. Nothing was stored. Give an object, or set --app module:attribute."
            )
        from shoestring.cli.listing import unknown
        from shoestring.core.errors import NotFound
        from shoestring.loading import load_app

        handlers = load_app(config).registry.handlers
        if self._handler not in handlers:
            raise NotFound(unknown("handler", self._handler, handlers))
        return handlers[self._handler].arguments


_REMEDY: Final = """Give an object of arguments by name, as in '{"to": "a@b.example"}', or an array by position."""


def _cause(error: Exception) -> str:
    return "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
