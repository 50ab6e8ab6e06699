"""Say in one line which value does not fit JSON or its annotation, and where it stands.

A path is written as in `$.recipients[2].address`: `$` is the whole body (or the list of items).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

#: All that msgspec and the values' own code raise when something does not fit. ValueError is for text that is not
#: UTF-8, OverflowError for numbers too large, RecursionError for a structure that contains itself.
MISFITS: Final = (msgspec.MsgspecError, TypeError, ValueError, OverflowError, RecursionError)
NOT_FINITE: Final = "expected a finite number: JSON has no NaN and no infinity"

#: msgspec writes "Expected `int`, got `str` - at `$.to`", or "... - at `key` in `$.to`".
_PLACE: Final = re.compile(r" - at (?:`(key)` in )?`([^`]*)`$")


def told(error: Exception) -> tuple[str, str]:
    """Return what is wrong and the path to it; the path is empty where the error does not know it.

    >>> told(msgspec.ValidationError("Expected `str`, got `int` - at `$.to`"))
    ('expected str, got int', '$.to')
    """
    if isinstance(error, UnicodeError):
        return "its text is not valid Unicode (a lone surrogate, or bytes that are not UTF-8)", ""
    if isinstance(error, RecursionError):
        return "it is nested too deeply, or contains itself", ""
    text = str(error)
    place = _PLACE.search(text)
    what = text if place is None else text[: place.start()]
    path = "" if place is None else place[2]
    if place is not None and place[1]:
        path = f"{path} (a key)"
    what = what.replace("`", "")
    return what[:1].lower() + what[1:] if not what.startswith("JSON") else what, path


def blamed(error: Exception, values: Iterable[tuple[str, object]]) -> tuple[str, str]:
    """Return what is wrong and where, by looking through the values (path, value) for what `error` cannot say.

    An error of encoding has no path, and a NaN has become a null before anything is checked.
    """
    what, path = told(error)
    if path and not what.endswith("null"):
        return what, path
    for place, value in values:
        try:
            msgspec.json.encode(value)
        except MISFITS as found:
            return told(found)[0], place
        if (found_path := not_finite(value, place)) is not None:
            return NOT_FINITE, found_path
    return what, path


def not_finite(value: object, path: str = "$") -> str | None:
    """Return the path to the first NaN or infinity in `value`: msgspec writes them as null, silently.

    >>> not_finite({"to": [1.0, float("nan")]})
    '$.to[1]'
    """
    return next(_not_finite(msgspec.to_builtins(value, str_keys=True), path), None)


def _not_finite(value: object, path: str) -> Iterator[str]:
    if isinstance(value, float):
        if not math.isfinite(value):
            yield path
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _not_finite(member, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, member in enumerate(value):
            yield from _not_finite(member, f"{path}[{index}]")
