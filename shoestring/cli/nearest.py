"""The name that was meant, when the one that was typed is not known."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return "Did you mean …?" for the nearest name, or an empty text if none is near.

    >>> did_you_mean("send_mial", ["send_mail", "block"])
    'Did you mean send_mail?'
    """
    import difflib  # costs 2 ms, and only a mistake needs it

    near = difflib.get_close_matches(typed, dict.fromkeys(known), n=1, cutoff=0.5)
    return f"Did you mean {near[0]}?" if near else ""
