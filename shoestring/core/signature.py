"""How one function's arguments travel: as one body, or as a fan-out's items and the arguments they share."""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Mapping, Sequence
from inspect import Parameter
from typing import Final

import msgspec

from shoestring.core.annotations import element_of, parameters_of
from shoestring.core.errors import ArgumentError, UsageError
from shoestring.core.misfit import MISFITS, NOT_FINITE, blamed, not_finite
from shoestring.core.shape import Body, Call, Shape

_encode: Final = msgspec.json.Encoder().encode
_INDEX: Final = re.compile(r"^\$\[(\d+)\]")
_TAKE_AN_ITEM: Final = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD, Parameter.VAR_POSITIONAL)


class Arguments:
    """The arguments of one function, to and from JSON.

    >>> def send_mail(to: str, copies: int = 1) -> None: ...
    >>> arguments = Arguments.of(send_mail)
    >>> arguments.encode(("a@b.example",), {"copies": 2})
    b'{"to":"a@b.example","copies":2}'
    >>> arguments.decode(b'{"to":"a@b.example"}')
    (('a@b.example', 1), {})
    >>> arguments.encode((5,), {})
    Traceback (most recent call last):
    shoestring.core.errors.ArgumentError: send_mail: argument $.to: expected str, got int
    """

    __slots__ = ("_item", "_read_items", "_shared", "_whole", "check", "decode", "encode", "item_name", "name")

    #: encode(args, kwargs) returns the body of that call; raises ArgumentError if it does not fit the function.
    encode: Callable[[tuple[object, ...], Mapping[str, object]], bytes]
    #: check(body) raises ArgumentError unless the body decodes into the function's arguments.
    check: Callable[[Body], None]
    #: decode(body) returns (args, kwargs), ready for `fn(*args, **kwargs)`; raises ArgumentError.
    decode: Callable[[Body], Call]

    def __init__(self, name: str, parameters: Sequence[Parameter], *, skip_item: bool, batch: bool) -> None:
        self.name = name
        first = parameters[0] if parameters and parameters[0].kind in _TAKE_AN_ITEM else None
        if first is None and (skip_item or batch):
            first_argument = "the cursor" if skip_item else "the list of items"
            raise UsageError(f"{name} is called with {first_argument} first; give it a positional parameter for that")
        skipped = first is not None and first.kind is not Parameter.VAR_POSITIONAL
        self._shared = Shape(name, parameters[1:] if skipped else parameters)
        self._whole = self._shared if skip_item else Shape(name, parameters)
        self._item = None if skip_item else first
        self.item_name = self._item.name if self._item is not None else None
        self._read_items: Callable[[Body], list[object]] | None = None
        if self._item is not None:
            item = element_of(self._item, name) if batch else self._item.annotation
            self._read_items = msgspec.json.Decoder(types.GenericAlias(list, (item,))).decode
        # The hot methods are those of the shape itself: one call less, 100,000 times a second.
        self.encode = self._whole.encode
        self.check = self._whole.check
        self.decode = self._whole.decode

    @classmethod
    def of(
        cls, fn: Callable[..., object], *, skip_item: bool = False, batch: bool = False, name: str | None = None
    ) -> Arguments:
        """Read `fn`'s signature; raise UsageError naming the parameter whose annotation cannot be used.

        With `skip_item` the first parameter is not the caller's business (a source's cursor): the bodies hold the
        others, and `decode` returns what goes behind it. With `batch` the first parameter is the list of a chunk's
        items. `name` is what errors call the function.
        """
        if name is None:
            name = str(getattr(fn, "__name__", type(fn).__name__))
        return cls(name, parameters_of(fn, name), skip_item=skip_item, batch=batch)

    def __repr__(self) -> str:
        return f"<Arguments of {self.name}{self._whole.signature}>"

    def encode_items(self, items: Sequence[object]) -> bytes:
        """Return items of a fan-out as a JSON array; if one does not fit, the ArgumentError has its `index`.

        >>> def block(target: int, *, account: str) -> None: ...
        >>> Arguments.of(block).encode_items([1, 2, 3])
        b'[1,2,3]'
        """
        read = self._items_reader()
        try:
            body = _encode(items if isinstance(items, list | tuple) else list(items))
            read(body)
        except MISFITS as error:
            raise self._bad_item(error, items) from None
        if b"null" in body and (path := not_finite(items)) is not None:
            raise self._item_error(path, NOT_FINITE)
        return body

    def decode_items(self, items: Body) -> list[object]:
        """Return the items of a JSON array, typed; if one does not fit, the ArgumentError has its `index`."""
        read = self._items_reader()
        try:
            return read(items)
        except MISFITS as error:
            raise self._bad_item(error, ()) from None

    def encode_shared(self, kwargs: Mapping[str, object]) -> bytes:
        """Return the body of the arguments that all items of a fan-out share."""
        self._items_reader()
        return self._shared.encode((), kwargs)

    def check_shared(self, body: Body) -> None:
        """Raise ArgumentError unless `body` decodes into the arguments besides the item."""
        self._items_reader()
        self._shared.check(body)

    def decode_shared(self, body: Body) -> dict[str, object]:
        """Return the keywords of `fn(item, **keywords)`.

        >>> def block(target: int, account: str, force: bool = False) -> None: ...
        >>> Arguments.of(block).decode_shared(b'{"account":"troll"}')
        {'account': 'troll', 'force': False}
        """
        self._items_reader()
        return self._shared.decode_named(body)

    def _items_reader(self) -> Callable[[Body], list[object]]:
        """Return the items' decoder, if this function can take the items of a fan-out at all."""
        if self._read_items is None:
            raise UsageError(
                f"{self.name}{self._whole.signature} cannot be fanned out to: it takes no positional argument; "
                "give it a first parameter for the item"
            )
        if self._shared.positional_only and self._item is not None:
            raise UsageError(
                f"{self.name}{self._whole.signature} cannot be fanned out to: what the items share is passed by name, "
                f"and {self._shared.positional_only[0]!r} is positional-only; move it behind the '/'"
            )
        return self._read_items

    def _bad_item(self, error: Exception, items: Sequence[object]) -> ArgumentError:
        what, path = blamed(error, ((f"$[{index}]", item) for index, item in enumerate(items)))
        return self._item_error(path, what) if path else ArgumentError(f"{self.name}: items: {what}")

    def _item_error(self, path: str, what: str) -> ArgumentError:
        found = _INDEX.match(path)
        return ArgumentError(f"{self.name}: item {path}: {what}", index=int(found[1]) if found else None)
