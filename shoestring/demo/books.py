"""Do the books balance? The API's own count beside what shoestring says it did, user by user.

Pure: tallies of the stub and progress records of the daemon in, a verdict out. Blocked accounts must equal done items,
gone and suspended ones the discarded items, nobody may be missing, and the daemon's ledger must say the same as its
jobs. Repeated calls are no error, they are the price of at-least-once delivery, and are shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from shoestring.core.model import Ledger, Progress
from shoestring.demo.social import Tally


@dataclass(frozen=True, slots=True)
class Row:
    """One user, or all together: accounts as the API counts them, items as shoestring does, and calls."""

    user: str
    followers: int
    blocked: int  # accounts, by the API
    done: int  # items, by shoestring
    gone: int
    suspended: int
    discarded: int  # items, by shoestring
    repeated: int  # calls for an account already settled, for whatever reason
    repeated_late: int  # those of them that followed an answer which came too late
    limited: int  # calls refused with 429
    told: int  # messages to the user that the job is done


@dataclass(frozen=True, slots=True)
class Books:
    rows: list[Row]
    total: Row
    problems: list[str]

    @property
    def balanced(self) -> bool:
        return not self.problems


def balance(tallies: Sequence[Tally], jobs: Mapping[str, Progress], ledger: Ledger) -> Books:
    """Set the API's tallies beside the jobs, which are by user, and say in words what does not match."""
    rows, problems = [], []
    for tally in tallies:
        job = jobs[tally.user]
        rows.append(_row(tally, job))
        problems += [f"{tally.user}: {problem}" for problem in _problems(tally, job)]
    sums = [sum(getattr(row, field.name) for row in rows) for field in fields(Row)[1:]]
    total = Row("all", *sums)
    return Books(rows, total, problems + _ledger_problems(ledger, total, messages=len(rows)))


def _row(tally: Tally, job: Progress) -> Row:
    return Row(
        user=tally.user,
        followers=tally.followers,
        blocked=tally.blocked,
        done=job.done,
        gone=tally.gone,
        suspended=tally.suspended,
        discarded=job.failed,
        repeated=tally.repeated + tally.repeated_late,
        repeated_late=tally.repeated_late,
        limited=tally.limited_blocks + tally.limited_pages,
        told=tally.told,
    )


def _problems(tally: Tally, job: Progress) -> list[str]:
    expectations: list[tuple[int | None, int, str]] = [
        (job.done, tally.blocked, "items done, but the API counts {} blocked accounts"),
        (job.failed, tally.gone + tally.suspended, "items discarded, but the API counts {} gone or suspended accounts"),
        (job.total, tally.followers, "items in the job, but the account has {} followers"),
        (job.pending, 0, "items still pending, expected {}"),
        (job.cancelled, 0, "items cancelled, expected {}"),
        (tally.stray, 0, "calls for accounts nobody asked to block, expected {}"),
    ]
    problems = _differences(expectations)
    if tally.told == 0:
        problems.append("never told that the job is done")
    return problems


def _ledger_problems(ledger: Ledger, total: Row, *, messages: int) -> list[str]:
    """Compare with the ledger, which counts the messages to the users too: a task each."""
    expectations: list[tuple[int | None, int, str]] = [
        (ledger.accepted, total.followers + messages, "accepted, expected {}"),
        (ledger.completed, total.done + messages, "completed, expected {}"),
        (ledger.discarded, total.discarded, "discarded, expected {}"),
        (ledger.pending, 0, "pending, expected {}"),
    ]
    return [f"ledger: {problem}" for problem in _differences(expectations)]


def _differences(expectations: list[tuple[int | None, int, str]]) -> list[str]:
    return [f"{found} {text.format(wanted)}" for found, wanted, text in expectations if found != wanted]
