"""Everything the engine knows by name or number: queues, lanes, handlers, jobs, parks, and the next id.

In memory it is the truth, the file follows with each commit; at a start it is read back from there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from shoestring.core.bucket import Bucket
from shoestring.core.lanes import Lane, Park, Queue, Scheduler, longer
from shoestring.core.model import JobId, JobSpec, JobState, LaneId, Ledger, QueueConfig, TaskId
from shoestring.core.signals import Scope
from shoestring.core.window import Window
from shoestring.engine.committer import Committer, Haste
from shoestring.engine.records import HandlerState, Job
from shoestring.engine.registry import Registry
from shoestring.store.opening import ID_STEP, BucketRow, JobRow, LaneRow, Opening

#: Lanes kept in memory although they have no work, so that a user who comes back costs no read.
_IDLE_LANES_MAX = 10_000

#: Bits of a job's version below its generation: who waits for a newer one is not left behind by a restart.
_VERSIONS = 32


class Books:
    def __init__(
        self,
        *,
        registry: Registry,
        queues: Mapping[str, QueueConfig],
        window: int,
        scheduler: Scheduler,
        committer: Committer,
    ) -> None:
        self.registry = registry
        self.scheduler = scheduler
        self.queues: dict[str, Queue] = {}
        self.lanes: dict[tuple[str, str], Lane] = {}
        self.lanes_by_id: dict[int, Lane] = {}
        self.handlers: dict[str, HandlerState] = {}
        self.handlers_by_id: dict[int, HandlerState] = {}
        self.missing_handlers: set[int] = set()  # those the app does not declare
        self.jobs: dict[int, Job] = {}
        self.user_parks: dict[str, Park] = {}
        self.lane_parks: dict[int, Park] = {}
        #: By queue, the books of the lanes that are not in memory, added up.
        self.rest: dict[str, Ledger] = {}
        self.generation = 0
        self.forgot_lanes = 0  # times lanes were forgotten: who remembers any had better look again
        self.discarded_kept = 0
        self._configs = queues
        self._window = window
        self._committer = committer
        self._next_id = 1
        self._reserved_id = 1
        self._next_lane = 1

    def open(self, found: Opening, *, now_ms: int) -> None:
        """Take over what the file holds at the start of a generation."""
        self.generation = found.generation
        self._next_id, self._reserved_id = found.next_id, found.next_id + ID_STEP
        self._next_lane = found.next_lane
        self.discarded_kept = found.discarded_kept
        for number, name in found.handlers.items():
            self._add_handler(number, name)
        self.rest = {row.queue: _ledger(row) for row in found.rest}
        for row in found.lanes:
            self._add_lane_row(row)
        for bucket in found.buckets:
            self.fill_bucket(bucket, now_ms)
        for job_row in found.jobs:
            self._add_stored_job(job_row)
        for scope, name, until_ms, reason in found.parks:
            if until_ms > now_ms:
                self._apply_park(scope, name, Park(until_ms, reason))
            else:
                self._committer.gathering.batch.parks_gone.append((scope, name))

    # -- ids ------------------------------------------------------------------------------------------------------

    def new_ids(self, count: int) -> TaskId:
        """Return the first of `count` consecutive ids that were never given before."""
        first = self._next_id
        self._next_id += count
        if self._next_id > self._reserved_id:
            # The commit that carries the first task of a step also carries the step: they are lost or kept together.
            self._reserved_id = self._next_id + ID_STEP
            self._committer.gathering.batch.next_id = self._reserved_id
        return TaskId(first)

    def give_back_ids(self) -> None:
        """At a clean end, have the next generation go on where this one stopped."""
        self._committer.gathering.batch.next_id = self._reserved_id = self._next_id

    # -- queues and lanes -----------------------------------------------------------------------------------------

    def queue(self, name: str) -> Queue:
        found = self.queues.get(name)
        if found is None:
            found = self.queues[name] = Queue(name, self._configs.get(name, QueueConfig()))
        return found

    def add_lane(self, queue: str, user: str) -> Lane:
        """Make the lane of a user who never had one."""
        lane = self._make_lane(LaneId(self._next_lane), queue, user)
        self._next_lane += 1
        lane.window.complete = True
        return lane

    def add_stored_lane(self, row: LaneRow) -> Lane:
        """Bring a lane back that had no work left when this generation began, or was forgotten since."""
        lane = self._add_lane_row(row)
        rest = self.rest.setdefault(row.queue, Ledger())
        _add(rest, lane.ledger, sign=-1)
        return lane

    def _add_lane_row(self, row: LaneRow) -> Lane:
        lane = self._make_lane(LaneId(row.id), row.queue, row.user)
        lane.ledger = _ledger(row)
        lane.delayed = row.delayed
        lane.is_new = False
        lane.window.complete = lane.ledger.pending == 0 and lane.delayed == 0
        return lane

    def _make_lane(self, lane_id: LaneId, queue: str, user: str) -> Lane:
        lane = Lane(lane_id, self.queue(queue), user, Window(self._window))
        for park in (self.lane_parks.get(lane_id), self.user_parks.get(user)):
            if park is not None:
                lane.park = longer(lane.park, park)
        limit = lane.queue.config.limit
        if limit is not None:
            lane.bucket = Bucket.full(capacity=limit.capacity, rate=limit.rate, now_ms=0)
        self.lanes[queue, user] = lane
        self.lanes_by_id[lane_id] = lane
        return lane

    def fill_bucket(self, row: BucketRow, now_ms: int) -> None:
        """Give a lane the tokens it had; capacity and rate are the configuration's."""
        lane = self.lanes.get((row.queue, row.user))
        if lane is not None and lane.bucket is not None:
            full = lane.bucket
            lane.bucket = Bucket(
                tokens=min(row.tokens, full.capacity),
                capacity=full.capacity,
                rate=full.rate,
                updated_at_ms=row.updated_at_ms,
            ).refilled(now_ms)

    def forget_idle_lanes(self) -> None:
        """Keep the lanes in memory bounded. Called between commits, never between learning a lane and using it."""
        if len(self.lanes) <= 2 * _IDLE_LANES_MAX:
            return
        self.forgot_lanes += 1
        dirty = self._committer.gathering.lanes
        busy = {job.lane for job in self.jobs.values()}
        for key, lane in list(self.lanes.items()):
            idle = lane.ledger.pending == 0 and not lane.running and not lane.in_ring and lane.park is None
            if idle and lane.bucket is None and lane not in dirty and lane not in busy:
                del self.lanes[key], self.lanes_by_id[lane.id]
                _add(self.rest.setdefault(lane.queue.name, Ledger()), lane.ledger)

    # -- handlers -------------------------------------------------------------------------------------------------

    def handler(self, name: str) -> HandlerState:
        """Return the handler of a name, giving it its number at its first task; its function may be missing."""
        found = self.handlers.get(name)
        if found is None:
            found = self._add_handler(max(self.handlers_by_id, default=0) + 1, name)
            self._committer.gathering.batch.handlers.append((found.id, name))
            self._committer.want(Haste.LAZY)
        return found

    def _add_handler(self, number: int, name: str) -> HandlerState:
        found = HandlerState(number, name, self.registry.handlers.get(name))
        self.handlers[name] = self.handlers_by_id[number] = found
        if found.spec is None:
            self.missing_handlers.add(number)
        return found

    # -- jobs -----------------------------------------------------------------------------------------------------

    def add_job(self, spec: JobSpec, lane: Lane, *, now_ms: int) -> Job:
        job = Job(JobId(self.new_ids(1)), spec, lane, self.handler(spec.handler), created_at_ms=now_ms)
        job.version = self.generation << _VERSIONS
        self.jobs[job.id] = job
        return job

    def _add_stored_job(self, row: JobRow) -> None:
        spec = msgspec.json.decode(row.spec, type=JobSpec)
        job = Job(
            JobId(row.id), spec, self.lanes_by_id[row.lane], self.handler(spec.handler), created_at_ms=row.created_at_ms
        )
        job.state = JobState(row.state)
        job.cursor, job.seq = row.cursor, row.seq
        job.next_pull_at_ms, job.pulls_failed = row.next_pull_at_ms, row.pulls_failed
        job.accepted, job.done, job.failed, job.cancelled = row.accepted, row.done, row.failed, row.cancelled
        job.error, job.finished_at_ms, job.purge = row.error, row.finished_at_ms, bool(row.purge)
        job.version = self.generation << _VERSIONS
        self.jobs[job.id] = job

    # -- parks ----------------------------------------------------------------------------------------------------

    def park(self, lane: Lane, scope: Scope, park: Park) -> None:
        """Hold a lane, a queue or all lanes of a user until an instant: one row, however many tasks wait."""
        name = {"lane": str(lane.id), "queue": lane.queue.name, "user": lane.user}[scope]
        park = self._apply_park(scope, name, park)
        self._committer.gathering.batch.parks[scope, name] = (scope, name, park.until_ms, park.reason)
        self._committer.want(Haste.SOON)

    def _apply_park(self, scope: str, name: str, park: Park) -> Park:
        """Park, unless it is parked for longer; returns what holds then."""
        if scope == "queue":
            queue = self.queue(name)
            queue.park = park = longer(queue.park, park)
        elif scope == "user":
            self.user_parks[name] = park = longer(self.user_parks.get(name), park)
            for each in self._lanes_of(name):
                each.park = longer(each.park, park)
        else:
            self.lane_parks[int(name)] = park = longer(self.lane_parks.get(int(name)), park)
            if (lane := self.lanes_by_id.get(int(name))) is not None:
                lane.park = longer(lane.park, park)
        return park

    def _lanes_of(self, user: str) -> Iterable[Lane]:
        return (lane for lane in self.lanes.values() if lane.user == user)

    # -- the ledger -----------------------------------------------------------------------------------------------

    def ledger_of(self, queue: Queue) -> Ledger:
        """Return the books of a queue: all its lanes, in memory or not."""
        total = Ledger()
        _add(total, self.rest.get(queue.name, total))
        for lane in self.lanes.values():
            if lane.queue is queue:
                _add(total, lane.ledger)
        return total


def _ledger(row: LaneRow) -> Ledger:
    return Ledger(
        accepted=row.accepted, completed=row.completed, discarded=row.discarded, cancelled=row.cancelled,
        expired=row.expired, dropped=row.dropped,
    )  # fmt: skip


def _add(total: Ledger, more: Ledger, sign: int = 1) -> None:
    total.accepted += sign * more.accepted
    total.completed += sign * more.completed
    total.discarded += sign * more.discarded
    total.cancelled += sign * more.cancelled
    total.expired += sign * more.expired
    total.dropped += sign * more.dropped
