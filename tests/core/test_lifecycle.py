"""The transition table, every state with every event: what may happen to a task and what must not."""

from __future__ import annotations

import pytest

from shoestring.core.lifecycle import BURNS_ATTEMPT, FINAL, TRANSITIONS, Event, IllegalTransition, State, next_state

#: Each row a state, each word an event and where it leads. What is not here must be refused.
ALLOWED = {
    State.DELAYED: "due->ready cancel->cancelled expire->expired drop->dropped",
    State.READY: "claim->running discard->discarded cancel->cancelled expire->expired drop->dropped",
    State.RUNNING: (
        "complete->completed retry->delayed snooze->delayed release->ready recover->ready discard->discarded "
        "cancel->cancelled"
    ),
    State.DISCARDED: "replay->ready",
    State.COMPLETED: "",
    State.CANCELLED: "",
    State.EXPIRED: "",
    State.DROPPED: "",
}


def moves(state: State) -> dict[Event, State]:
    pairs = (word.split("->") for word in ALLOWED[state].split())
    return {Event(event): State(after) for event, after in pairs}


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_state_takes_every_event_as_agreed_or_refuses_it(state: State, event: Event) -> None:
    """A move nobody thought of is how a task is lost or run twice."""
    expected = moves(state).get(event)

    if expected is None:
        with pytest.raises(IllegalTransition, match=rf"{event.name} does not apply to a task that is {state.value}"):
            next_state(state, event)
    else:
        assert expected is next_state(state, event)


@pytest.mark.parametrize("state", FINAL)
def test_what_ended_stays_ended(state: State) -> None:
    """Only a discarded task comes back, and only because somebody asked for it."""
    out = {event for (before, event) in TRANSITIONS if before is state}

    assert out == ({Event.REPLAY} if state is State.DISCARDED else set())


def test_every_state_that_is_not_final_can_reach_an_end() -> None:
    """A state without a way out holds its tasks for ever."""
    reached = set(FINAL)
    while True:
        more = {before for (before, _), after in TRANSITIONS.items() if after in reached} - reached
        if not more:
            break
        reached |= more

    assert reached == set(State)


def test_every_event_applies_to_some_state() -> None:
    """An event nothing answers to is a word without a meaning."""
    assert {event for _, event in TRANSITIONS} == set(Event)


def test_a_stop_a_crash_and_a_wait_burn_no_attempt() -> None:
    """A deploy a day must not use up the attempts of a task that waits for a slow service."""
    assert {Event.COMPLETE, Event.RETRY, Event.DISCARD} == BURNS_ATTEMPT


def test_an_attempt_is_burnt_only_by_what_ends_a_run() -> None:
    """What never ran has made no attempt, save the discard of what must not run again."""
    burning = {state for (state, event) in TRANSITIONS if event in BURNS_ATTEMPT}

    assert {State.RUNNING, State.READY} == burning
    assert [event for (state, event) in TRANSITIONS if state is State.READY and event in BURNS_ATTEMPT] == [
        Event.DISCARD
    ]
