"""Numbers and texts as people read them: counts, sizes, spans of time, instants, and text that is safe to print.

Everything here is pure; the present is passed in.
"""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from typing import Final

#: Two units at most: "3 d 4 h" is what one acts on, the minutes are noise.
_UNITS: Final = (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1_000))
_SIZES: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")


def count(number: int) -> str:
    """Write a count with its thousands apart.

    >>> count(251400)
    '251,400'
    """
    return f"{number:,}"


def counted(number: int, one: str, many: str = "") -> str:
    """Write a count with its noun.

    >>> counted(1, "task"), counted(1200, "task"), counted(0, "entry", "entries")
    ('1 task', '1,200 tasks', '0 entries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def size(bytes_: int) -> str:
    """Write a number of bytes with three digits at most.

    >>> size(512), size(13_002_342)
    ('512 bytes', '12.4 MiB')
    """
    value, unit = float(bytes_), 0
    while value >= 1_000 and unit < len(_SIZES) - 1:
        value, unit = value / 1_024, unit + 1
    digits = 0 if unit == 0 or value >= 99.95 else 1
    return f"{value:,.{digits}f} {_SIZES[unit]}"


def span(length_ms: int) -> str:
    """Write a length of time, its sign dropped.

    >>> span(350), span(12_400), span(245_000), span(274_300_000)
    ('350 ms', '12 s', '4 min 5 s', '3 d 4 h')
    """
    left = abs(length_ms)
    if left < 1_000:
        return f"{left} ms"
    parts: list[str] = []
    for unit, unit_ms in _UNITS:
        if left >= unit_ms:
            parts.append(f"{left // unit_ms} {unit}")
            left %= unit_ms
        elif parts:
            break  # "3 d 4 min" would read as if the hours had been forgotten
        if len(parts) == 2:
            break
    return " ".join(parts)


def when(at_ms: int, now_ms: int) -> str:
    """Say how far an instant is from now.

    >>> when(1_000, 61_000), when(61_000, 1_000), when(1_000, 1_400)
    ('1 min ago', 'in 1 min', 'now')
    """
    away_ms = at_ms - now_ms
    if abs(away_ms) < 1_000:
        return "now"
    return f"in {span(away_ms)}" if away_ms > 0 else f"{span(away_ms)} ago"


def instant(at_ms: int) -> str:
    """Write an instant in the local time zone, to the second."""
    return datetime.fromtimestamp(at_ms / 1_000, tz=UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def plain(text: str, *, lines: bool = False) -> str:
    """Return `text` with what a terminal would obey made visible; newlines stay only when `lines`.

    Users, unique keys, arguments and errors come from producers and from the APIs they call: an escape sequence in
    one of them must not reach the terminal of whoever looks.

    >>> plain("red: \\x1b[31m"), plain("two\\nlines")
    ('red: \\\\x1b[31m', 'two lines')
    """
    if text.isprintable():
        return text
    return "".join(_visible(char, lines=lines) for char in text)


def _visible(char: str, *, lines: bool) -> str:
    if char.isprintable():
        return char
    if char in "\n\t":
        return char if lines else " "
    return char.encode("unicode_escape").decode()


def width(text: str) -> int:
    """Return how many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_columns(char) for char in text)


def cut(text: str, columns: int) -> str:
    """Return `text` shortened to `columns` columns, with an ellipsis where it goes on.

    >>> cut("a long reason", 8), cut("short", 8)
    ('a long …', 'short')
    """
    if width(text) <= columns:
        return text
    kept, used = "", 0
    for char in text:
        used += _columns(char)
        if used > columns - 1:
            break
        kept += char
    return kept + "…"


def _columns(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
