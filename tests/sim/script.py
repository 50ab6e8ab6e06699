"""What the simulated handlers do: every subject (a task, an item, a `then`) has a script, one step for each call."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from random import Random
from typing import Final

from shoestring.core.signals import Scope


class Act(enum.Enum):
    OK = "ok"
    FAIL = "fail"
    GIVE_UP = "give up"  # an error the policy does not retry
    RETRY_LATER = "retry later"
    SNOOZE = "snooze"
    RATE_LIMITED = "rate limited"
    DISCARD = "discard"
    HANG = "hang"  # until somebody cancels it
    CATCH_SOFT = "catch soft"  # is told by SoftTimeout and finishes
    DEFY = "defy"  # is cancelled, and finishes all the same
    SWALLOW = "swallow"  # is cancelled, and goes on for a long while
    CANCEL_ITSELF = "cancel itself"
    EXIT = "exit"  # raises SystemExit
    KILL = "kill"  # takes the process down


@dataclass(frozen=True, slots=True)
class Step:
    act: Act
    wait_s: float = 0.0  # before it acts; 0: without giving up the loop
    delay_s: float = 0.0  # what it asks for
    scope: Scope = "lane"


@dataclass(slots=True, eq=False)
class Subject:
    """Something the queue was given to do. `n` is what its handler is called with."""

    n: int
    handler: str
    steps: list[Step]
    queue: str = ""
    user: str = ""
    durable: bool = False
    volatile: bool = False
    unique: str | None = None
    due_at_ms: int = 0
    expires_at_ms: int | None = None
    job: int | None = None  # of the simulation's own numbering
    is_then: bool = False
    #: What the producer knows: None while it was told nothing, True accepted, False refused.
    accepted: bool | None = None
    task_id: int | None = None
    cancelled: bool = False  # the cancellation was confirmed
    maybe_cancelled: bool = False  # it was asked for
    accepted_in: int = 0  # generation
    told: int = 0  # what was committed when the producer was told
    calls: int = 0

    def step(self) -> Step:
        """Return what the next call does; the last step again when the script is over."""
        found = self.steps[min(self.calls, len(self.steps) - 1)]
        self.calls += 1
        return found

    @property
    def is_poison(self) -> bool:
        return any(step.act is Act.KILL for step in self.steps)


@dataclass(frozen=True, slots=True)
class Temper:
    """How the handlers of a run behave: weights of what goes wrong, and how long calls take."""

    trouble: float = 0.3  # share of calls that do not simply succeed
    quick: float = 0.4  # share of calls that never wait
    typical_s: float = 0.05
    stubborn: float = 0.05  # share of troubles that end in a hang
    acts: tuple[Act, ...] = field(default=())


_TROUBLES: Final = (
    (Act.FAIL, 10),
    (Act.GIVE_UP, 1),
    (Act.RETRY_LATER, 2),
    (Act.SNOOZE, 2),
    (Act.RATE_LIMITED, 2),
    (Act.DISCARD, 1),
    (Act.CANCEL_ITSELF, 1),
    (Act.EXIT, 1),
)
_STUBBORN: Final = (Act.HANG, Act.HANG, Act.CATCH_SOFT, Act.DEFY, Act.SWALLOW)
_SCOPES: Final[tuple[Scope, ...]] = ("lane", "lane", "queue", "user")


def draw_steps(rng: Random, temper: Temper) -> list[Step]:
    """Draw the script of one subject."""
    steps: list[Step] = []
    while len(steps) < 6:
        step = _draw_step(rng, temper)
        steps.append(step)
        if step.act is Act.OK:
            return steps
    # It ends well at last, or badly: who snoozes for ever never comes to an end.
    return [*steps, Step(rng.choice((Act.OK, Act.FAIL)))]


def _draw_step(rng: Random, temper: Temper) -> Step:
    wait_s = 0.0 if rng.random() < temper.quick else rng.expovariate(1 / temper.typical_s)
    if rng.random() >= temper.trouble:
        return Step(Act.OK, wait_s)
    if rng.random() < temper.stubborn:
        return Step(rng.choice(_STUBBORN), wait_s)
    act = rng.choices([each for each, _ in _TROUBLES], [weight for _, weight in _TROUBLES])[0]
    return Step(act, wait_s, rng.choice((0.0, 0.01, 0.3, 2.0, 5.0)), rng.choice(_SCOPES))
