"""Aligned columns, coloured or not."""

from __future__ import annotations

import click

from shoestring.cli.table import Cell, Column, facts, rows, sentences

COLUMNS = [Column("ID", right=True), Column("ERROR", flexible=True), Column("USER")]


def test_columns_are_as_wide_as_their_widest() -> None:
    """Numbers are compared by their last digit, so they are flush right."""
    lines = rows(COLUMNS, [("7", "boom", "alice"), ("1200", "a longer one", "b")])

    assert [click.unstyle(line) for line in lines] == [
        "  ID  ERROR         USER",
        "   7  boom          alice",
        "1200  a longer one  b",
    ]


def test_the_flexible_column_gives_way_on_a_narrow_terminal() -> None:
    """A wrapped row is unreadable; what is cut can be read with `show`."""
    lines = rows(COLUMNS, [("7", "connection refused by the other side", "alice")], limit=30)

    assert [click.unstyle(line) for line in lines] == [
        "ID  ERROR                USER",
        " 7  connection refused…  alice",
    ]
    assert max(len(click.unstyle(line)) for line in lines) == 30


def test_the_widest_column_gives_way_first() -> None:
    """A long reason is no cause to cut a short name."""
    columns = [Column("HANDLER", flexible=True), Column("ERROR", flexible=True)]

    (_, line) = rows(columns, [("jobs.send_mail", "x" * 40)], limit=40)

    assert click.unstyle(line) == "jobs.send_mail  " + "x" * 23 + "…"


def test_a_message_is_broken_between_words() -> None:
    """A terminal breaks in the middle of a path, which then cannot be copied."""
    message = "No daemon answers on /var/lib/app/shoestring.sock.\nStart it."

    assert sentences(message, 30) == ["No daemon answers on", "/var/lib/app/shoestring.sock.", "Start it."]
    assert sentences(message, None) == message.split("\n")


def test_colour_changes_nothing_but_colour() -> None:
    """What is piped to a file must look as it did on the terminal."""
    (_, line) = rows([Column("A"), Column("B")], [(Cell("x", "red"), "y")])

    assert line == "\x1b[31mx\x1b[0m  y"


def test_other_peoples_text_cannot_break_the_table() -> None:
    """A user's name with a newline would forge a row."""
    (_, line) = rows([Column("USER")], [("eve\n99  root\x1b[2J",)])

    assert line == "eve 99  root\\x1b[2J"


def test_facts_are_aligned_and_their_lines_too() -> None:
    """A multi-line error stays under its name."""
    assert [click.unstyle(line) for line in facts([("id", "7"), ("error", "one\ntwo")])] == [
        "id     7",
        "error  one",
        "       two",
    ]
