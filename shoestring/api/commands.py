"""The verbs of the protocol: parse, call, answer. No business logic.

Each verb has a record of what it takes, a function that calls the engine, a function that writes the answer, and
three facts the server needs: whether it changes something (its answer is then remembered for a while, so that a
client that lost its connection can send the same frame again), whether only the admin socket offers it, and
whether it waits.

A call returns its answer, or something awaitable that will be its answer. `enqueue` is the hot one: the engine
returns a future, which costs no asyncio task.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from shoestring.api.parameters import (
    ROWS_MAX,
    WAIT_MAX_S,
    AppendItems,
    Enqueue,
    Hello,
    ListDiscarded,
    ListJobs,
    ListTasks,
    Nothing,
    OneJob,
    OneTask,
    Replay,
    SealJob,
    WaitJob,
)
from shoestring.core.errors import ShoestringError
from shoestring.core.model import Duplicate, JobSpec
from shoestring.engine.engine import Engine

P = TypeVar("P")
Answer = object | Awaitable[object]
#: From a verb's parameters and its result to the job whose items its client sends, and whether it is still open.
Feeding = Callable[[Any, Any], tuple[int, bool] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon:
    """What the verbs work on: the engine, and what the daemon tells a client about itself."""

    engine: Engine
    version: str
    generation: int
    frame_bytes_max: int
    payload_bytes_max: int
    #: How many changes of one client are remembered; it must leave no more unanswered.
    window: int
    #: How long a frame may take from its first byte to its last.
    frame_timeout_s: float


@dataclass(frozen=True, slots=True)
class Verb:
    """One method of the protocol; see the module's text."""

    decode: Callable[[bytes | msgspec.Raw], Any]
    call: Callable[[Daemon, Any], Answer]
    render: Callable[[Any], object]
    changes: bool
    admin: bool
    waits: bool
    feeds: Feeding | None


def hello(daemon: Daemon, _: Hello) -> Answer:
    return {
        "version": daemon.version,
        "generation": daemon.generation,
        "frame_bytes_max": daemon.frame_bytes_max,
        "payload_bytes_max": daemon.payload_bytes_max,
        "window": daemon.window,
    }


def ping(daemon: Daemon, _: Nothing) -> Answer:
    return {"version": daemon.version, "generation": daemon.generation}


def enqueue(daemon: Daemon, params: Enqueue) -> Answer:
    return daemon.engine.submit(params.tasks)


def open_job(daemon: Daemon, spec: JobSpec) -> Answer:
    return daemon.engine.open_job(spec)


def append_items(daemon: Daemon, params: AppendItems) -> Answer:
    return daemon.engine.append_items(params.job_id, params.seq, params.items)


def seal_job(daemon: Daemon, params: SealJob) -> Answer:
    return daemon.engine.seal_job(params.job_id, params.error)


def show_progress(daemon: Daemon, params: OneJob) -> Answer:
    return daemon.engine.progress(params.job_id)


def wait_job(daemon: Daemon, params: WaitJob) -> Answer:
    timeout_s = min(max(params.timeout_s, 0.0), WAIT_MAX_S)
    return daemon.engine.wait_job(params.job_id, version=params.version, timeout_s=timeout_s)


def cancel_job(daemon: Daemon, params: OneJob) -> Answer:
    return daemon.engine.cancel_job(params.job_id)


def show_task(daemon: Daemon, params: OneTask) -> Answer:
    return daemon.engine.task(params.task_id)


def cancel_task(daemon: Daemon, params: OneTask) -> Answer:
    return daemon.engine.cancel_task(params.task_id)


def show_status(daemon: Daemon, _: Nothing) -> Answer:
    return daemon.engine.status()


def list_tasks(daemon: Daemon, params: ListTasks) -> Answer:
    return daemon.engine.tasks(
        queue=params.queue,
        user=params.user,
        handler=params.handler,
        state=params.state,
        limit=_rows(params.limit),
    )


def list_jobs(daemon: Daemon, params: ListJobs) -> Answer:
    return daemon.engine.jobs(state=params.state, limit=_rows(params.limit))


def list_discarded(daemon: Daemon, params: ListDiscarded) -> Answer:
    return daemon.engine.discarded(handler=params.handler, queue=params.queue, limit=_rows(params.limit))


def replay(daemon: Daemon, params: Replay) -> Answer:
    return daemon.engine.replay(task_ids=params.task_ids, handler=params.handler, queue=params.queue, all=params.all)


def stored(results: Sequence[int | Duplicate | ShoestringError]) -> object:
    """Write what became of each entry of a frame; in the usual case, ids in a row, as two numbers."""
    if results and results == list(range(first := _number(results[0]), first + len(results))):
        return {"first": first, "count": len(results)}
    return {"results": [_one(result) for result in results]}


def error_object(error: ShoestringError) -> Mapping[str, object]:
    return {"code": error.code, "message": str(error), "data": error.data()}


def _one(result: int | Duplicate | ShoestringError) -> object:
    if isinstance(result, ShoestringError):
        return {"error": error_object(result)}
    if isinstance(result, Duplicate):
        return {"duplicate_of": result.task_id}
    return result


def _number(result: int | Duplicate | ShoestringError) -> int:
    return result if isinstance(result, int) else -1


def _rows(limit: int) -> int:
    return min(max(limit, 1), ROWS_MAX)


def _opened(spec: JobSpec, job_id: int) -> tuple[int, bool] | None:
    return (job_id, True) if spec.source is None else None


def _appended(params: AppendItems, _: object) -> tuple[int, bool]:
    return params.job_id, True


def _ended(params: SealJob | OneJob, _: object) -> tuple[int, bool]:
    return params.job_id, False


def _named(name: str) -> Callable[[object], object]:
    return lambda value: {name: value}


def _as_is(value: object) -> object:
    return value


def _verb(
    params: type[P],
    call: Callable[[Daemon, P], Answer],
    render: Callable[[Any], object] = _as_is,
    *,
    changes: bool = False,
    admin: bool = False,
    waits: bool = False,
    feeds: Feeding | None = None,
) -> Verb:
    return Verb(msgspec.json.Decoder(params).decode, call, render, changes, admin, waits, feeds)


#: The verb that names the client; the connection itself acts on it too.
HELLO: Final = _verb(Hello, hello)

VERBS: Final[Mapping[str, Verb]] = {
    "hello": HELLO,
    "ping": _verb(Nothing, ping),
    "enqueue": _verb(Enqueue, enqueue, stored, changes=True),
    "job.open": _verb(JobSpec, open_job, _named("job_id"), changes=True, feeds=_opened),
    "job.append": _verb(AppendItems, append_items, _named("accepted"), changes=True, feeds=_appended),
    "job.seal": _verb(SealJob, seal_job, changes=True, feeds=_ended),
    "job.progress": _verb(OneJob, show_progress),
    "job.wait": _verb(WaitJob, wait_job, waits=True),
    "job.cancel": _verb(OneJob, cancel_job, changes=True, feeds=_ended),
    "task.show": _verb(OneTask, show_task),
    "task.cancel": _verb(OneTask, cancel_task, changes=True),
    "status": _verb(Nothing, show_status),
    "tasks": _verb(ListTasks, list_tasks, admin=True),
    "jobs": _verb(ListJobs, list_jobs, admin=True),
    "discarded": _verb(ListDiscarded, list_discarded, admin=True),
    "discarded.replay": _verb(Replay, replay, _named("replayed"), changes=True, admin=True),
}


def verbs(*, admin: bool) -> dict[str, Verb]:
    """Return the verbs a socket offers: producers get those that are not for the administrator."""
    return {name: verb for name, verb in VERBS.items() if admin or not verb.admin}
