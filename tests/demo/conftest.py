"""One user's books that balance, to be put out of balance by the tests."""

from __future__ import annotations

import pytest

from shoestring.core.model import JobState, Progress
from shoestring.demo.social import Tally


@pytest.fixture
def tally() -> Tally:
    return Tally(
        user="ada",
        account="troll-of-ada",
        followers=100,
        blocked=95,
        gone=3,
        suspended=2,
        repeated=4,
        repeated_late=1,
        limited_blocks=7,
        limited_pages=1,
        told=1,
    )


@pytest.fixture
def job() -> Progress:
    return Progress(
        job_id=1,
        state=JobState.DONE,
        handler="block",
        queue="block",
        user="ada",
        total=100,
        accepted=100,
        done=95,
        failed=5,
        cancelled=0,
        pending=0,
        created_at_ms=0,
    )
