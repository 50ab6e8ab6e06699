"""Aligned columns and lines of facts, coloured where the terminal wants it.

The words are aligned before they are coloured, so that what is drawn on a terminal and what is written to a file are
the same but for the colour. On a terminal the flexible columns give way until the row fits; in a pipe nothing is
cut, because `grep` and `awk` read it.
"""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TextIO

import click

from shoestring.cli.figures import cut, plain, width

_GAP: Final = "  "
_NARROWEST: Final = 8


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `right` for numbers, `flexible` for those that give way on a narrow terminal."""

    title: str
    right: bool = False
    flexible: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """A text and its colour."""

    text: str
    colour: str | None = None
    dim: bool = False
    bold: bool = False


def terminal_width(stream: TextIO | None = None) -> int | None:
    """Return the columns of the terminal that `stream`, by default stdout, is; None if it is none."""
    return shutil.get_terminal_size().columns if (stream or sys.stdout).isatty() else None


def rows(columns: Sequence[Column], lines: Iterable[Sequence[str | Cell]], limit: int | None = None) -> list[str]:
    """Return the header and one line of text per row, at most `limit` columns wide if the flexible ones allow it."""
    cells = [[_safe(value) for value in line] for line in lines]
    widths = [max(width(text) for text in texts) for texts in _texts(columns, cells)]
    if limit is not None:
        _fit(columns, widths, limit)
    header = [Cell(column.title, dim=True) for column in columns]
    return [_line(columns, widths, line) for line in [header, *cells]]


def facts(pairs: Iterable[tuple[str, str]], indent: int = 0) -> list[str]:
    """Return one line per (name, value), the names dim and aligned; a value of several lines stays aligned."""
    known = list(pairs)
    name_width = max((len(name) for name, _ in known), default=0)
    out: list[str] = []
    for name, value in known:
        first, *more = plain(value, lines=True).split("\n")
        out.append(" " * indent + click.style(name.ljust(name_width), dim=True) + _GAP + first)
        out.extend(" " * (indent + name_width) + _GAP + line for line in more)
    return out


def sentences(text: str, limit: int | None, indent: int = 0) -> list[str]:
    """Break a message between words, so that `indent` and a line fit `limit` columns; without limit keep its lines."""
    lines = plain(text, lines=True).split("\n")
    if limit is None:
        return lines
    wrapped = (textwrap.wrap(line, limit - indent, break_long_words=False, break_on_hyphens=False) for line in lines)
    return [part for parts in wrapped for part in parts or [""]]


def _safe(value: str | Cell) -> Cell:
    made = value if isinstance(value, Cell) else Cell(value)
    return replace(made, text=plain(made.text))


def _texts(columns: Sequence[Column], cells: Sequence[Sequence[Cell]]) -> Iterator[list[str]]:
    """Yield the texts of each column, its title first."""
    for at, column in enumerate(columns):
        yield [column.title, *(line[at].text for line in cells)]


def _fit(columns: Sequence[Column], widths: list[int], limit: int) -> None:
    """Narrow the flexible columns, always the widest, until a row fits or all are at their narrowest."""
    over = sum(widths) + len(_GAP) * (len(widths) - 1) - limit
    while over > 0:
        spare = [
            (widths[at], at)
            for at, column in enumerate(columns)
            if column.flexible and widths[at] > max(_NARROWEST, width(column.title))
        ]
        if not spare:
            return
        widths[max(spare)[1]] -= 1
        over -= 1


def _line(columns: Sequence[Column], widths: Sequence[int], line: Sequence[Cell]) -> str:
    made: list[str] = []
    for at, (column, one) in enumerate(zip(columns, line, strict=True)):
        text = cut(one.text, widths[at]) if column.flexible else one.text
        space = " " * (widths[at] - width(text))
        # The last column is not padded: no spaces stand at the end of a line.
        before, after = (space, "") if column.right else ("", space if at < len(columns) - 1 else "")
        made.append(before + _coloured(text, one) + after)
    return _GAP.join(made).rstrip(" ")


def _coloured(text: str, one: Cell) -> str:
    if text and (one.colour or one.dim or one.bold):
        return click.style(text, fg=one.colour, dim=one.dim or None, bold=one.bold or None)
    return text
