"""Lengths of time as options take them."""

from __future__ import annotations

import click


def duration_ms(text: str) -> int:
    """Return 30s, 5m, 2h or 1d in milliseconds; as the type of an option, it refuses what is none of them."""
    from shoestring.core.errors import UsageError
    from shoestring.core.retry import duration_s

    try:
        return round(duration_s(text, "the time") * 1_000)
    except UsageError as error:
        raise click.BadParameter(str(error)) from error
