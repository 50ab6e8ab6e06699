"""Numbers and texts as people read them."""

from __future__ import annotations

import doctest

import pytest

from shoestring.cli import figures, nearest
from shoestring.cli.figures import cut, instant, plain, size, span, when, width


@pytest.mark.parametrize("module", [figures, nearest])
def test_the_examples_in_the_texts_are_true(module: object) -> None:
    """An example that lies is worse than none."""
    assert doctest.testmod(module)[0] == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("length_ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1 s"),
        (59_999, "59 s"),
        (60_000, "1 min"),
        (3_600_000, "1 h"),
        (3_660_000, "1 h 1 min"),
        (3_601_000, "1 h"),
        (86_400_000 * 400, "400 d"),
        (-5_000, "5 s"),
    ],
)
def test_a_span_has_two_neighbouring_units_at_most(length_ms: int, text: str) -> None:
    """ "1 h 1 s" reads as if the minutes had been forgotten."""
    assert text == span(length_ms)


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_000, "1.0 KiB"),
        (1_048_576, "1.0 MiB"),
        (150 << 20, "150 MiB"),
        (3 << 50, "3,072 TiB"),
    ],
)
def test_a_size_has_few_digits(bytes_: int, text: str) -> None:
    """Nobody compares bytes; three digits tell what is large."""
    assert text == size(bytes_)


def test_an_instant_is_told_as_a_distance() -> None:
    """A due time is read as "how long still"."""
    assert ("in 1 min", "1 min ago", "now") == (when(60_000, 0), when(0, 60_000), when(300, 0))


def test_an_instant_is_written_in_the_local_zone(folder: object) -> None:
    """The fixture's zone is UTC, the reader's is his own."""
    assert instant(1_790_000_000_000) == "2026-09-21 14:13:20"


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    """Arguments and errors are other people's text: a title set or a screen cleared by them hides what happened."""
    assert plain("\x1b]0;owned\x07\x9b2J\r") == "\\x1b]0;owned\\x07\\x9b2J\\r"
    # An override of the writing direction makes "gnp.exe" look like "exe.png".
    assert plain("\u202egnp.exe") == "\\u202egnp.exe"
    assert plain("a\nb\tc") == "a b c"
    assert plain("a\nb", lines=True) == "a\nb"


def test_wide_characters_are_cut_by_columns() -> None:
    """A row that is one column too long breaks the whole table."""
    assert width("名前") == 4
    assert width("e\u0301") == 1
    assert cut("名前です", 5) == "名前…"
    assert cut("abc", 3) == "abc"
