"""The records that cross the wire and the disk."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoestring.core.model import (
    DEFAULT_OPTIONS,
    ID_MASK,
    PRIORITY_MAX,
    PRIORITY_MIN,
    Durability,
    Entry,
    JobSpec,
    JobState,
    Ledger,
    Limit,
    Options,
    Progress,
    QueueConfig,
    SourceCall,
    id_of,
    priority_of,
    rank_of,
)

PRIORITIES = st.integers(PRIORITY_MIN, PRIORITY_MAX)
IDS = st.integers(1, ID_MASK)
PLACES = st.tuples(PRIORITIES, IDS)


@given(PLACES, PLACES)
def test_ranks_order_a_lane_by_priority_and_then_by_age(one: tuple[int, int], other: tuple[int, int]) -> None:
    """The ready table is clustered by rank: its order is the order of execution."""
    first = sorted([one, other], key=lambda place: (-place[0], place[1]))
    assert first == sorted([one, other], key=lambda place: rank_of(*place))


@given(PRIORITIES, IDS)
def test_a_rank_holds_both_and_fits_where_it_is_stored(priority: int, task_id: int) -> None:
    """SQLite's integers have 63 bits and a sign; a rank over that would silently become a float."""
    rank = rank_of(priority, task_id)
    assert (priority_of(rank), id_of(rank)) == (priority, task_id)
    assert 0 < rank < 2**63


@pytest.mark.parametrize("id", [1, 2**53 - 1])
def test_ids_are_numbers_javascript_can_hold(id: int) -> None:
    """A dashboard that rounds an id would show, or cancel, another task."""
    assert id_of(rank_of(0, id)) == id == int(float(id))


def test_an_entry_is_as_short_as_it_can_be() -> None:
    """A hundred thousand of them go through one frame; what is as declared is not said."""
    entry = Entry("send_mail", msgspec.Raw(b'{"to":"a"}'))
    assert msgspec.json.encode(entry) == b'["send_mail",{"to":"a"},null]'
    assert msgspec.json.encode(DEFAULT_OPTIONS) == b"{}"
    assert msgspec.json.encode(Options(user="alice", priority=5)) == b'{"user":"alice","priority":5}'


def test_an_entry_needs_no_options() -> None:
    """The shortest call from another language is a name and its arguments."""
    entry = msgspec.json.decode(b'["send_mail",{}]', type=Entry)
    assert (entry.handler, bytes(entry.body), entry.options) == ("send_mail", b"{}", None)


OPTIONS = st.builds(
    Options,
    user=st.text(max_size=5),
    queue=st.none() | st.text(max_size=5),
    priority=PRIORITIES,
    delay_ms=st.none() | st.integers(0, 10**12),
    expires_at_ms=st.none() | st.integers(0, 10**15),
    unique=st.none() | st.text(max_size=5),
    durability=st.none() | st.sampled_from(Durability),
)


@given(OPTIONS)
def test_options_arrive_as_they_were_set(options: Options) -> None:
    """What `.using()` says counts at the other end."""
    assert msgspec.json.decode(msgspec.json.encode(options), type=Options) == options


def test_an_option_nobody_knows_is_refused() -> None:
    """A typo in `expires_in_ms` would let stale work run."""
    with pytest.raises(msgspec.ValidationError, match="unknown field `expire_in_ms`"):
        msgspec.json.decode(b'{"expire_in_ms":5}', type=Options)


def test_a_job_arrives_as_it_was_opened() -> None:
    """Source, follow-up task and shared arguments are part of what is stored first."""
    spec = JobSpec(
        handler="block",
        body=msgspec.Raw(b'{"account":"troll"}'),
        options=Options(user="alice"),
        source=SourceCall(name="followers", body=msgspec.Raw(b"{}")),
        then=Entry("tell", msgspec.Raw(b"{}")),
        every_ms=600_000,
    )
    encoded = msgspec.json.encode(spec)
    assert msgspec.json.encode(msgspec.json.decode(encoded, type=JobSpec)) == encoded


COUNTS = st.integers(0, 10**9)


@given(COUNTS, COUNTS, COUNTS, COUNTS, COUNTS, COUNTS)
def test_the_books_balance(
    completed: int, discarded: int, cancelled: int, expired: int, dropped: int, pending: int
) -> None:
    """Every task that was accepted is somewhere: accepted = all the ways to end + what is still to do."""
    ends = completed + discarded + cancelled + expired + dropped
    ledger = Ledger(
        accepted=ends + pending,
        completed=completed,
        discarded=discarded,
        cancelled=cancelled,
        expired=expired,
        dropped=dropped,
    )
    assert ledger.pending == pending


@pytest.mark.parametrize("state", JobState)
def test_a_job_is_finished_when_nothing_of_it_will_run(state: JobState) -> None:
    """`wait()` returns then, and only then."""
    progress = Progress(
        job_id=1,
        state=state,
        handler="block",
        queue="block",
        user="",
        total=None,
        accepted=0,
        done=0,
        failed=0,
        cancelled=0,
        pending=0,
        created_at_ms=0,
    )
    assert progress.finished == (state in {JobState.DONE, JobState.CANCELLED})


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Limit, b'{"capacity":0,"rate":1}'),
        (Limit, b'{"capacity":1,"rate":0}'),
        (Limit, b'{"capacity":1,"rate":-1}'),
        (QueueConfig, b'{"concurrency":0}'),
        (QueueConfig, b'{"low_water":0}'),
    ],
)
def test_a_limit_under_which_nothing_would_ever_run_is_refused(kind: type, settings: bytes) -> None:
    """It would look like a queue that hangs."""
    with pytest.raises(msgspec.ValidationError, match="Expected `"):
        msgspec.json.decode(settings, type=kind)
