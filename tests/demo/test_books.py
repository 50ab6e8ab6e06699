"""The verdict: every way in which the two counts can differ must be found and said."""

from __future__ import annotations

import msgspec
import pytest

from shoestring.core.model import Progress
from shoestring.demo.books import balance
from shoestring.demo.social import Tally


def test_equal_counts_balance_and_are_summed_up(tally: Tally, job: Progress) -> None:
    """A false alarm would be as bad as a missed one."""
    ben = msgspec.structs.replace(tally, user="ben")

    books = balance([tally, ben], {"ada": job, "ben": job})

    assert books.balanced
    assert (books.total.blocked, books.total.done, books.total.discarded) == (190, 190, 10)
    assert (books.total.repeated, books.total.repeated_late, books.total.limited) == (10, 2, 16)


@pytest.mark.parametrize(
    ("counted", "recorded", "said"),
    [
        ({"blocked": 94}, {}, "ada: 95 items done, but the API counts 94 blocked accounts"),
        ({}, {"done": 96}, "ada: 96 items done, but the API counts 95 blocked accounts"),
        ({"gone": 2}, {}, "ada: 5 items discarded, but the API counts 4 gone or suspended accounts"),
        ({}, {"total": 99}, "ada: 99 items in the job, but the account has 100 followers"),
        ({}, {"total": None}, "ada: None items in the job, but the account has 100 followers"),
        ({}, {"pending": 1}, "ada: 1 items still pending, expected 0"),
        ({}, {"cancelled": 1}, "ada: 1 items cancelled, expected 0"),
        ({"stray": 1}, {}, "ada: 1 calls for accounts nobody asked to block, expected 0"),
        ({"told": 0}, {}, "ada: never told that the job is done"),
    ],
)
def test_every_difference_is_found_and_said(
    tally: Tally, job: Progress, counted: dict[str, int], recorded: dict[str, int], said: str
) -> None:
    """The demo's exit code rests on this comparison."""
    books = balance([msgspec.structs.replace(tally, **counted)], {"ada": msgspec.structs.replace(job, **recorded)})

    assert not books.balanced
    assert books.problems == [said]
