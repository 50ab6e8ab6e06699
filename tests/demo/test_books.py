"""The verdict: every way in which the two counts can differ must be found and said."""

from __future__ import annotations

import msgspec
import pytest

from shoestring.core.model import Ledger, Progress
from shoestring.demo.books import balance
from shoestring.demo.social import Tally


def test_equal_counts_balance_and_are_summed_up(tally: Tally, job: Progress) -> None:
    """A false alarm would be as bad as a missed one."""
    ben = msgspec.structs.replace(tally, user="ben")

    ledger = Ledger(accepted=202, completed=192, discarded=10)

    books = balance([tally, ben], {"ada": job, "ben": job}, ledger)

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
    job = msgspec.structs.replace(job, **recorded)
    ledger = Ledger(accepted=101, completed=job.done + 1, discarded=job.failed, dropped=100 - job.done - job.failed)

    books = balance([msgspec.structs.replace(tally, **counted)], {"ada": job}, ledger)

    assert not books.balanced
    assert books.problems == [said]


@pytest.mark.parametrize(
    ("ledger", "said"),
    [
        (Ledger(accepted=102, completed=96, discarded=6), "ledger: 102 accepted, expected 101"),
        (Ledger(accepted=101, completed=96), "ledger: 5 pending, expected 0"),
        (Ledger(accepted=101, completed=95, discarded=6), "ledger: 95 completed, expected 96"),
    ],
)
def test_a_ledger_that_does_not_agree_with_the_jobs_is_found(
    tally: Tally, job: Progress, ledger: Ledger, said: str
) -> None:
    """Ledger and jobs are counted in different places; one of them lost something."""
    assert said in balance([tally], {"ada": job}, ledger).problems
