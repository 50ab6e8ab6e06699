"""What must hold, by name, and the checks made when a handler or a source is called.

The others are made where they can be seen: `ledger` after every commit, `liveness` at every tick, `rest` when a
generation ends and when everything is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from shoestring.core.bucket import Bucket
from shoestring.core.model import Charge, Delivery
from shoestring.engine.calls import Stop
from shoestring.engine.runner import CRASHES_ALONE
from tests.sim.world import Call, End, World

if TYPE_CHECKING:
    from tests.sim.stage import SimJob

CATALOGUE: Final = {
    # calls
    "no_overlap": "a task is not called while it is being called, except after it was abandoned",
    "never_twice": "what completed is not called again, unless a crash lost its outcome",
    "never_after_the_end": "what was discarded or cancelled is not called again, unless a crash lost that",
    "attempt_counts": "each failure burns one attempt; a release, a snooze and a rate limit burn none",
    "attempts_bounded": "no attempt has a number beyond the handler's limit",
    "never_early": "nothing runs before it is due: delayed, retried or snoozed",
    "at_most_once": "an at-most-once task is never called twice, whatever crashes, unless it put itself off",
    "cancelled_stays": "a cancelled task or job is not called after its cancellation was confirmed",
    "expired_never_runs": "a task that expired is not called",
    "parked_waits": "nothing of a parked lane, queue or user is called before its time",
    "concurrency": "slots, queues and handlers never run more than they may",
    "tokens": "a run-charged bucket is never overdrawn",
    "poison_ends": "a task that takes the process down is given up after three crashes",
    "pull_has_room": "a page is pulled only when the lane is below its low-water mark, and not while it is held",
    # the file, after every commit
    "ledger_balances": "accepted = ended + what is really there, per lane, in the file",
    "jobs_balance": "accepted = done + failed + cancelled + what is left in the chunks, in the file",
    "delayed_counted": "a lane's count of delayed tasks is the number of its rows",
    "one_place": "a task has one row",
    "no_orphans": "a chunk's items, its progress and its task come and go together",
    "unique_held": "a unique key is held by exactly the live task it was given to",
    "lead": "the books in memory are never behind the file's",
    # memory beside the file, after every commit
    "window_holds": "a row the window has passed is in memory, or waits for its handler",
    "timers_hold": "a delayed row the timers have passed is in memory",
    # time
    "liveness": "runnable work and a free slot do not coexist for more than two seconds",
    "answered": "whoever asks for something is answered, while the disk has room",
    "overdue": "a delayed task moves when it is due",
    "pull_liveness": "a source whose lane has room is pulled",
    "punctual": "on a quiet machine a delayed task starts within 10 ms",
    "drains": "everything comes to an end when the faults are over",
    "stop_ends": "a stop takes no longer than its grace and what abandoning takes",
    "daemon_lives": "the daemon dies of nothing but a broken disk",
    # at rest
    "nothing_held": "at rest no slot, gate, lane or memory is held, no window is loading, nobody is alone",
    "idle_writes_nothing": "at rest nothing is committed",
    "no_suspects": "nobody is suspected without a crash, and after one only who was running",
    "waiting_counted": "what waits for a handler that is not declared is known to the item",
    "books_close": "memory and file agree at rest",
    # at the end
    "none_vanishes": "every accepted task ends: completed, discarded, cancelled or expired",
    "none_invented": "the books count what was accepted, no more and no less",
    "completed_ran": "as many are booked completed as handlers ran to their end",
    "then_once": "`then` is stored exactly once when its job is done, and not if the source failed",
    "job_counts": "a finished job's counts are its items",
}


_PUNCTUAL_MS: Final = 10
#: Stored buckets are rounded to the millisecond.
_ROUNDING_MS: Final = 2


#: The puller looks, and calls the source some turns of the loop later; what that raises, the engine hears some turns
#: later still. What is parked in between comes too late.
A_TURN_S: Final = 1e-4


def started(world: World, call: Call, batch_size: int) -> None:
    """Check a call that begins now, and note it."""
    _check_subject(world, call)
    _check_history(world, call)
    _check_time(world, call)
    world.lives.setdefault((call.subject.n, call.task.id), []).append(call)
    world.running[call] = None
    if call.first_of_batch:
        _check_concurrency(world, call)
        _check_tokens(world, call, batch_size)


def _check_subject(world: World, call: Call) -> None:
    subject, task = call.subject, call.task
    what = f"{subject.n} as task {task.id}"
    if task.id in world.cancelled_tasks or (task.job is not None and task.job in world.cancelled_jobs):
        world.fail("cancelled_stays", what)
    spec = task.handler.spec
    assert spec is not None
    if call.attempt > spec.retry.max_attempts:
        world.fail("attempts_bounded", f"{what}: attempt {call.attempt} of {spec.retry.max_attempts}")
    # One that put itself off said that it had done nothing yet.
    before = world.lives.get((subject.n, task.id), [])
    if spec.delivery is Delivery.AT_MOST_ONCE and any(each.end is not End.FREE for each in before):
        world.fail("at_most_once", what)
    calls = len(world.lives.get((subject.n, task.id), []))
    if subject.is_poison and calls > CRASHES_ALONE and not world.power_cuts:
        world.fail("poison_ends", f"{what}: call {calls + 1}")


def _check_history(world: World, call: Call) -> None:
    history = world.lives.get((call.subject.n, call.task.id))
    if not history:
        return
    before = history[-1]
    what = f"{call.subject.n} as task {call.task.id}: attempt {before.attempt} ended {before.end}, now {call.attempt}"
    if world.crashed_since(before.generation) and not world.is_settled(before):
        return  # the crash may have lost what it came to
    end = before.end
    if before.was_abandoned:
        end = None
        if before.generation == world.generation and before.slot.stop in (Stop.SHUTDOWN, Stop.CANCELLED):
            world.fail("never_after_the_end", what)
    elif end is None:
        world.fail("no_overlap", what)
    if end is End.OK:
        world.fail("never_twice", what)
    if end is End.FINAL:
        world.fail("never_after_the_end", what)
    if end is End.BURNED and call.attempt != before.attempt + 1:
        world.fail("attempt_counts", what)
    if end is End.FREE and call.attempt != before.attempt:
        world.fail("attempt_counts", what)
    if world.latest_ms < before.not_before_ms:
        world.fail("never_early", f"{what}, {before.not_before_ms - world.latest_ms} ms early")


def _check_time(world: World, call: Call) -> None:
    subject, task = call.subject, call.task
    # What was due by the clock of a generation before stays so, even if the clock was set back since.
    if world.latest_ms < subject.due_at_ms:
        world.fail("never_early", f"{subject.n}: {subject.due_at_ms - world.latest_ms} ms before it is due")
    if world.is_calm and subject.due_at_ms and call.attempt == 1:
        late_ms = call.started_ms - subject.due_at_ms
        if late_ms > _PUNCTUAL_MS:
            world.fail("punctual", f"{subject.n}: {late_ms} ms late")
    # At-most-once tasks are marked on disk, and suspects wait to be alone, after they were chosen.
    spec = task.handler.spec
    assert spec is not None
    if spec.delivery is Delivery.AT_MOST_ONCE or task.extra.crashes >= CRASHES_ALONE:
        return
    expires_at_ms = task.extra.expires_at_ms
    if expires_at_ms is not None and task.chunk is None and call.started_ms > expires_at_ms + 1:
        world.fail("expired_never_runs", f"{subject.n}: {call.started_ms - expires_at_ms} ms after")
    until_ms = world.parked_until_ms(*call.lane)
    if world.latest_ms < until_ms:
        world.fail("parked_waits", f"{subject.n} in lane {call.lane}: {until_ms - world.latest_ms} ms early")


def _check_concurrency(world: World, call: Call) -> None:
    assert world.engine is not None
    alive = [each for each in world.running if each.first_of_batch and not each.was_abandoned]
    slots = world.engine._config.run.slots
    spec, queue = call.task.handler.spec, call.task.lane.queue
    assert spec is not None
    of_handler = sum(each.task.handler is call.task.handler for each in alive)
    of_queue = sum(each.task.lane.queue is queue for each in alive)
    if len(alive) > slots:
        world.fail("concurrency", f"{len(alive)} calls in {slots} slots")
    if spec.concurrency is not None and of_handler > spec.concurrency:
        world.fail("concurrency", f"{of_handler} calls of {spec.name}, which may have {spec.concurrency}")
    if queue.config.concurrency is not None and of_queue > queue.config.concurrency:
        world.fail("concurrency", f"{of_queue} calls in queue {queue.name}, which may have {queue.config.concurrency}")


def _check_tokens(world: World, call: Call, n: int) -> None:
    """Follow the bucket with a model of it. What a crash lost of it comes back, and no more."""
    limit = call.task.lane.queue.config.limit
    if limit is None or limit.charge is not Charge.RUN:
        return
    now_ms = call.started_ms
    bucket = world.buckets.get(call.lane)
    if bucket is None:
        bucket = Bucket.full(capacity=limit.capacity, rate=limit.rate, now_ms=now_ms)
    if bucket.ready_at_ms(1, now_ms + _ROUNDING_MS) > now_ms + _ROUNDING_MS and call.task.extra.crashes < CRASHES_ALONE:
        world.fail("tokens", f"lane {call.lane} has {bucket.refilled(now_ms).tokens:.2f} tokens left")
    world.buckets[call.lane] = bucket.spend(n, now_ms)


def pulled(world: World, job: SimJob) -> None:
    """Check that a source may be called now."""
    assert world.engine is not None and job.job_id is not None
    found = world.engine.books.jobs[job.job_id]
    lane = found.lane
    assert world.loop is not None
    grew = world.loop.time() - world.grew_s < A_TURN_S
    if lane.ledger.pending >= lane.queue.config.low_water and not grew:
        world.fail("pull_has_room", f"job {job.number}: {lane.ledger.pending} items are pending")
    if world.latest_ms < world.parked_until_ms(lane.queue.name, lane.user, slack_s=A_TURN_S):
        world.fail("pull_has_room", f"job {job.number}: its lane is parked")
