"""What each verb takes, as records: a frame's parameters are decoded and checked in one step.

A parameter of an unknown name is an error: a misspelt filter that silently lists everything, or a misspelt option
that silently does not apply, is found by the user much later.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

from shoestring.core.model import Entry, JobState, TaskState

#: The longest a `job.wait` is kept, in seconds; a client that waits longer asks again.
WAIT_MAX_S: Final = 60.0
#: The most rows one listing returns, whatever it asks for.
ROWS_MAX: Final = 1_000


class Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of what the verbs take; a misspelt parameter is an error, not a silent default."""


class Nothing(Parameters, frozen=True):
    pass


class Hello(Parameters, frozen=True):
    """A client's first frame: `client` is a random name it keeps across its connections."""

    client: Annotated[str, msgspec.Meta(min_length=16, max_length=64)]


class Enqueue(Parameters, frozen=True):
    tasks: list[Entry]


class OneJob(Parameters, frozen=True):
    job_id: int


class OneTask(Parameters, frozen=True):
    task_id: int


class AppendItems(Parameters, frozen=True):
    job_id: int
    seq: Annotated[int, msgspec.Meta(ge=0)]
    items: msgspec.Raw


class SealJob(Parameters, frozen=True):
    job_id: int
    error: str | None = None


class WaitJob(Parameters, frozen=True):
    job_id: int
    version: int = -1
    timeout_s: float = WAIT_MAX_S


class ListTasks(Parameters, frozen=True):
    queue: str | None = None
    user: str | None = None
    handler: str | None = None
    state: TaskState | None = None
    limit: int = 100


class ListJobs(Parameters, frozen=True):
    state: JobState | None = None
    limit: int = 100


class ListDiscarded(Parameters, frozen=True):
    handler: str | None = None
    queue: str | None = None
    limit: int = 100


class Replay(Parameters, frozen=True):
    task_ids: list[int] = msgspec.field(default_factory=list)
    handler: str | None = None
    queue: str | None = None
    all: bool = False
