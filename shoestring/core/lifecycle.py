"""The life of a task. Rule 1: whatever moves a task from one state to another is in this table and nowhere else.

               DUE                CLAIM               COMPLETE
    delayed ---------->  ready  ---------->  running ----------> completed
       ^  |              ^  ^  |               |  |  |
       |  |      RELEASE |  |  |               |  |  | DISCARD          REPLAY
       |  |      RECOVER '--+--+---------------'  |  +------> discarded --------> (a new task, ready)
       |  |                    |   RETRY, SNOOZE  |
       '--+--------------------+------------------'
          '--- CANCEL, EXPIRE, DROP, from wherever the task stands ---> cancelled | expired | dropped

"Retrying" is not a state: a task that will be tried again is `delayed` with attempts behind it. `running` is not
stored: the row stays where it was until the outcome, so a claim costs no write and a crash needs no repair. A stop
(RELEASE) and a crash (RECOVER) are not failures; neither burns an attempt.
"""

from __future__ import annotations

import enum
from typing import Final


class State(enum.Enum):
    READY = "ready"
    DELAYED = "delayed"
    RUNNING = "running"
    COMPLETED = "completed"
    DISCARDED = "discarded"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DROPPED = "dropped"


class Event(enum.Enum):
    DUE = "due"
    CLAIM = "claim"
    COMPLETE = "complete"
    RETRY = "retry"
    SNOOZE = "snooze"
    RELEASE = "release"
    RECOVER = "recover"
    DISCARD = "discard"
    CANCEL = "cancel"
    EXPIRE = "expire"
    DROP = "drop"
    REPLAY = "replay"


FINAL: Final = frozenset({State.COMPLETED, State.DISCARDED, State.CANCELLED, State.EXPIRED, State.DROPPED})

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.DELAYED, Event.DUE): State.READY,
    (State.DELAYED, Event.CANCEL): State.CANCELLED,
    (State.DELAYED, Event.EXPIRE): State.EXPIRED,
    (State.DELAYED, Event.DROP): State.DROPPED,
    (State.READY, Event.CLAIM): State.RUNNING,
    (State.READY, Event.DISCARD): State.DISCARDED,  # damaged on disk, or a crash too many: it never runs again
    (State.READY, Event.CANCEL): State.CANCELLED,
    (State.READY, Event.EXPIRE): State.EXPIRED,
    (State.READY, Event.DROP): State.DROPPED,
    (State.RUNNING, Event.COMPLETE): State.COMPLETED,
    (State.RUNNING, Event.RETRY): State.DELAYED,
    (State.RUNNING, Event.SNOOZE): State.DELAYED,
    (State.RUNNING, Event.RELEASE): State.READY,
    (State.RUNNING, Event.RECOVER): State.READY,
    (State.RUNNING, Event.DISCARD): State.DISCARDED,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.DISCARDED, Event.REPLAY): State.READY,
}

#: Events after which one more attempt counts against the handler's limit.
BURNS_ATTEMPT: Final = frozenset({Event.COMPLETE, Event.RETRY, Event.DISCARD})


class IllegalTransition(AssertionError):  # noqa: N818 - it reads as what it is
    """This is a bug in shoestring: a task was asked to do what its state does not allow."""


def next_state(state: State, event: Event) -> State:
    """Return the state `event` leads to.

    >>> next_state(State.RUNNING, Event.RELEASE)
    <State.READY: 'ready'>

    Raises:
        IllegalTransition: the table has no such move.
    """
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"{event.name} does not apply to a task that is {state.value}") from None
