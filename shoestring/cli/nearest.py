"""The name that was meant, when the one that was typed is not known."""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(typed: str, known: Iterable[str]) -> str:
    """Return "Did you mean …?" for the nearest name, or an empty text if none is near.

    >>> did_you_mean("stats", ["status", "tasks"])
    'Did you mean status?'
    >>> did_you_mean("send_mial", ["myproject.mail.jobs.send_mail", "myproject.mail.jobs.block"])
    'Did you mean myproject.mail.jobs.send_mail?'
    """
    import difflib  # costs 2 ms, and only a mistake needs it

    names = list(dict.fromkeys(known))
    # A handler's name begins with its module, which is long and which one tends to leave out.
    by_last_part = {name.rpartition(".")[2]: name for name in reversed(names)}
    for candidates in ({name: name for name in names}, by_last_part):
        if near := difflib.get_close_matches(typed, candidates, n=1, cutoff=0.6):
            return f"Did you mean {candidates[near[0]]}?"
    return ""
