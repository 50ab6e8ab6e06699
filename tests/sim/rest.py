"""The checks made when a generation ends well, and those made when everything is over."""

from __future__ import annotations

import sqlite3
from collections import Counter

from shoestring.core.model import JobState
from shoestring.engine.engine import Engine
from tests.sim.ledger import read_tasks
from tests.sim.script import Subject
from tests.sim.stage import SimJob
from tests.sim.world import End, World


def check_nothing_held(world: World, engine: Engine) -> None:
    """Check that an idle engine holds nothing."""
    held = {
        "running": engine.scheduler.running,
        "owned": sorted(engine.owned),
        "exclusive": engine.scheduler.exclusive,
        "lanes running": [lane.id for lane in engine.books.lanes.values() if lane.running],
        "lanes loading": [lane.id for lane in engine.books.lanes.values() if lane.window.loading],
        "lanes pending": [lane.id for lane in engine.books.lanes.values() if lane.ledger.pending or lane.delayed],
        "queues running": [queue.name for queue in engine.books.queues.values() if queue.running],
        "gates": [name for name, handler in engine.books.handlers.items() if handler.gate.running],
        "slots": [slot.number for slot in engine.runner.slots.values() if slot.runs is not None],
        "dead slots": [slot.number for slot in engine.runner.slots.values() if slot.work is None or slot.work.done()],
        "jobs": sorted(engine.books.jobs),
        "doomed": sorted(engine.dispatcher.doomed),
        "timers": engine.dispatcher._timers.loading,
        "waiting": {lane.id: lane.waiting for lane in engine.books.lanes.values() if any(lane.waiting.values())},
    }
    for name, value in held.items():
        if value:
            world.fail("nothing_held", f"{name}: {value}")


def check_suspects(world: World, found: list[tuple[int, int]]) -> None:
    """Check, at a start, that the register names only what the dead process had in hand."""
    allowed = world.suspects if world.crashed_since(world.generation - 1) else set()
    if innocent := set(found) - allowed:
        world.fail("no_suspects", f"{sorted(innocent)}, of {sorted(allowed)}")


def check_waiting(world: World, engine: Engine, conn: sqlite3.Connection) -> None:
    """Check that an idle engine knows how much waits for a handler that is not declared."""
    waiting: Counter[tuple[int, str]] = Counter()
    for each in read_tasks(conn):
        handler = engine.books.handlers_by_id[each.handler]
        if each.place == "ready" and handler.spec is None and not each.is_void:
            waiting[each.lane, handler.name] += each.left
    counted = Counter({
        (lane.id, name): count for lane in engine.books.lanes.values() for name, count in lane.waiting.items()
    })  # fmt: skip
    if waiting != counted:
        world.fail("waiting_counted", f"{waiting} in the file, {counted} in memory")


def check_books(world: World, engine: Engine, conn: sqlite3.Connection) -> None:
    """Check that the books in memory are the file's."""
    in_file = {
        row[0]: row[1:]
        for row in conn.execute(
            "SELECT id, accepted, completed, discarded, cancelled, expired, dropped, delayed FROM lanes"
        )
    }
    for lane in engine.books.lanes.values():
        books = lane.ledger
        mine = (
            books.accepted, books.completed, books.discarded, books.cancelled, books.expired, books.dropped,
            lane.delayed,
        )  # fmt: skip
        if any(mine) and in_file.get(lane.id) != mine:
            world.fail("books_close", f"lane {lane.id}: {mine} in memory, {in_file.get(lane.id)} in the file")


def check_end(world: World, jobs: dict[int, SimJob], conn: sqlite3.Connection) -> None:
    """Check what became of everything, when everything is over."""
    for table in ("ready", "delayed", "chunks", "progress", "uniques"):
        if count := conn.execute(f"SELECT count(*) FROM {table}").fetchone()[0]:
            world.fail("none_vanishes", f"{count} rows are left in {table}")
    kept = Counter[int]()
    for body, item in conn.execute("SELECT body, item FROM discarded"):
        kept[_number(body, item)] += 1
    for subject in world.subjects.values():
        _check_subject(world, jobs, subject, kept)
    _check_counts(world, conn)
    for job in jobs.values():
        _check_job(world, job, conn)


def _number(body: str, item: str | None) -> int:
    if item is not None:
        return int(item)
    digits = body.replace("[", "").replace("]", "").split(":")[1]
    return int(digits.split(",")[0].rstrip("}"))


def _check_subject(world: World, jobs: dict[int, SimJob], subject: Subject, kept: Counter[int]) -> None:
    calls = [call for (n, _), life in world.lives.items() if n == subject.n for call in life]
    if subject.accepted is False and calls:
        world.fail("none_invented", f"{subject.n} was refused and ran as {[call.task.id for call in calls]}")
    accepted = subject.accepted is True
    if accepted and subject.volatile and world.crashed_since(subject.accepted_in):
        accepted = False
    if subject.job is not None and not subject.is_then:
        accepted = _was_taken(jobs[subject.job], subject)
    if not accepted:
        return
    ended = any(call.end is End.OK for call in calls) or kept[subject.n] > 0
    may_have_ended = subject.maybe_cancelled or subject.expires_at_ms is not None
    if subject.job is not None:
        job = jobs[subject.job]
        may_have_ended = may_have_ended or job.maybe_cancelled or job.expires
    if not ended and not may_have_ended:
        world.fail("none_vanishes", f"{subject.n} ({subject.handler}, task {subject.task_id})")


def _was_taken(job: SimJob, subject: Subject) -> bool:
    return job.streamed and any(subject.n in job.pages[seq] for seq in job.taken)


def _check_counts(world: World, conn: sqlite3.Connection) -> None:
    accepted, completed = conn.execute("SELECT sum(accepted), sum(completed) FROM lanes").fetchone()
    ran = sum(any(call.end is End.OK or call.was_abandoned for call in life) for life in world.lives.values())
    if (completed or 0) > ran:
        world.fail("completed_ran", f"{completed} completed, {ran} ran to their end")
    sure = sum(
        subject.accepted is True and not (subject.volatile and world.crashed_since(subject.accepted_in))
        for subject in world.subjects.values()
    )
    if (accepted or 0) < sure:
        world.fail("none_invented", f"{accepted} accepted in the books, {sure} were told so")
    possible = sum(subject.accepted is not False for subject in world.subjects.values()) + world.replayed
    if not world.crashes and (accepted or 0) > possible:
        world.fail("none_invented", f"{accepted} accepted in the books, of {possible} at most")


def _check_job(world: World, job: SimJob, conn: sqlite3.Connection) -> None:
    if job.job_id is None:
        return
    row = conn.execute(
        "SELECT state, accepted, done, failed, cancelled, error FROM jobs WHERE id = ?", (job.job_id,)
    ).fetchone()
    if row is None:
        world.fail("none_vanishes", f"job {job.number}")
        return
    state, accepted, done, failed, cancelled, error = row
    what = f"job {job.number}: {row}"
    if state not in (JobState.DONE.value, JobState.CANCELLED.value):
        world.fail("drains", what)
    if state == JobState.CANCELLED.value and not job.maybe_cancelled:
        world.fail("job_counts", f"{what}, and nobody cancelled it")
    items = [n for page in job.pages for n in page]
    if accepted != done + failed + cancelled:
        world.fail("job_counts", what)
    if state == JobState.DONE.value and error is None and accepted != len(items):
        world.fail("job_counts", f"{what} of {len(items)} items")
    lives = [life for (n, _), life in world.lives.items() if n in set(items)]
    if done > sum(any(call.end is End.OK for call in life) for life in lives):
        world.fail("job_counts", what)
    if job.then is not None:
        thens = {life for n, life in world.lives if n == job.then}
        expected = state == JobState.DONE.value and error is None
        subject = world.subjects[job.then]
        if len(thens) > 1 + len(world.crashes) and not world.replays:
            world.fail("then_once", f"{what}, `then` ran as {thens}")
        forgotten = bool(world.power_cuts and thens)  # the job had been done before, and the disk forgot
        if expected != bool(thens) and not subject.maybe_cancelled and not forgotten:
            world.fail("then_once", f"{what}, `then` ran as {thens}")
