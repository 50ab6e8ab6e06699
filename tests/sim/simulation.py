"""One run: generation after generation of the shipped service over one file, until everything came to its end."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Final

import structlog

from shoestring.core.clock import SteadyWall
from shoestring.core.errors import ShoestringError, StorageError
from shoestring.core.model import JobState
from shoestring.log import log
from shoestring.store import schema
from tests.sim import rest
from tests.sim.disk import Faults, SimDb
from tests.sim.ledger import Watch
from tests.sim.liveness import Liveness
from tests.sim.loop import Killed, Livelock, SimLoop
from tests.sim.power import Image, forget_since
from tests.sim.producers import Producers
from tests.sim.scenario import Ending, Life, draw
from tests.sim.service import SimService
from tests.sim.stage import Stage
from tests.sim.violation import Violation
from tests.sim.world import EPOCH_MS, SimClock, World

_SILENT: Final = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(50))
_DRAIN_S: Final = 1_200.0
_GENERATIONS_MAX: Final = 40


@dataclass(frozen=True, slots=True)
class Report:
    seed: int
    digest: str
    generations: int
    virtual_s: float
    counts: dict[str, int]


def run(
    seed: int, *, verbose: bool = False, mutation: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Report:
    """Run the scenario of a seed; raises `Violation` if a promise was broken."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="shoestring-sim-", dir=shared if shared.is_dir() else None))
    simulation = Simulation(seed, folder, verbose=verbose)
    loud = log._bound
    log.use(loud if verbose else _SILENT)
    try:
        with mutation():
            return simulation.run()
    finally:
        log.use(loud)
        for db in simulation.dbs:
            db.abandon()
        shutil.rmtree(folder)


class Simulation:
    def __init__(self, seed: int, folder: Path, *, verbose: bool) -> None:
        self.scenario = draw(seed, folder)
        self.world = World(seed, verbose, self.scenario.calm)
        self.dbs: list[SimDb] = []
        self._rng = Random(f"run {seed}")
        self._producers = Producers(world=self.world, scenario=self.scenario, rng=Random(f"producers {seed}"))
        self._stage = Stage(self.world, self._producers.jobs)
        self._watch = Watch(self.world)
        self._path = self.scenario.config.database
        self._image = Image()

    def run(self) -> Report:
        world = self.world
        planned = list(self.scenario.lives)
        now_s, drained = 0.0, False
        while not drained:
            world.generation += 1
            if world.generation > _GENERATIONS_MAX:
                raise Violation("drains", f"{_GENERATIONS_MAX} generations, and no end")
            life = planned.pop(0) if planned else self._last_again()
            loop = SimLoop(now_s)
            world.loop, world.engine, world.dead = loop, None, False
            drained = self._live(loop, life)
            now_s = loop.time() + self._rng.choice((0.1, 5.0))
            if world.violation is not None:
                raise world.violation
        world.dead = False
        with closing(schema.connect(self._path, read_only=True)) as conn:
            rest.check_end(world, self._producers.jobs, conn)
        if world.violation is not None:
            raise world.violation
        return Report(world.seed, world.digest(), world.generation, now_s, dict(world.counts))

    def _last_again(self) -> Life:
        return replace(
            self.scenario.lives[-1], ending=Ending.DRAIN, actions=0, faults=Faults(), steps_ms=(), without=()
        )

    def _live(self, loop: SimLoop, life: Life) -> bool:
        """Run one generation; True if everything came to its end in it."""
        world = self.world
        world.say("generation", life.ending.value)
        try:
            clean = loop.run(self._generation(loop, life), hush=world.hush)
        except Killed:
            clean = False
        except Livelock as error:
            raise Violation("drains", str(error)) from error
        self._image = self.dbs[-1].image or self._image
        if not clean and world.violation is None:
            world.say("crash")
            if life.ending is Ending.POWER:
                self._cut_power()
            world.crashed()
        world.running.clear()
        return clean and life.ending is Ending.DRAIN

    def _cut_power(self) -> None:
        self.world.say("power cut")
        self.world.power_cuts += 1
        self._image.restore(self._path)
        for register in self._path.parent.glob("*.running"):
            register.unlink()  # it was in memory
        self._producers.power_was_cut()
        forget_since(self._image, self.world, self._producers.jobs)

    async def _generation(self, loop: SimLoop, life: Life) -> bool:
        world = self.world
        loop.set_exception_handler(self._complain)
        db = SimDb(
            self._path, rng=Random(self._rng.random()), slowness=life.slowness, small_at_once=life.small_at_once,
            faults=Faults(), observer=self._watch,
        )  # fmt: skip
        self.dbs.append(db)
        if any(each.ending is Ending.POWER for each in self.scenario.lives):
            db.image, db.take_image = self._image, lambda: Image.of(self._path, world)
        wall_ms = EPOCH_MS + int(loop.time() * 1000) + world.stepped_ms
        latest_ms = world.clock.latest_ms if world.clock else 0
        clock = SimClock(loop, SteadyWall(wall_ms, loop.time()), world.stepped_ms, latest_ms)
        world.clock = clock
        service = SimService(
            config=self.scenario.config, registry=self._stage.registry(without=life.without), db=db, clock=clock,
            rng=Random(self._rng.random()),
        )  # fmt: skip
        await service.start()
        rest.check_suspects(world, service.suspects)
        world.engine = service.engine
        world.buckets = {lane: bucket.refilled(clock.now_ms()) for lane, bucket in world.buckets.items()}
        self._set_off_faults(loop, db, life, clock)
        if life.ending in (Ending.KILL, Ending.POWER):
            loop.call_later(self._rng.uniform(0, life.active_s), _kill)
        failing = loop.create_task(self._until_failed(service, db))
        watching = loop.create_task(Liveness(world, db._viewer_conn).run())
        playing = loop.create_task(self._play(service, life))
        done, _ = await asyncio.wait([failing, playing], return_when=asyncio.FIRST_COMPLETED)
        watching.cancel()
        if failing in done:
            return False
        failing.cancel()
        try:
            return playing.result()
        except StorageError:
            if not db.injected:
                raise
            return False  # the last sync failed: the process ends as it does for any other

    def _set_off_faults(self, loop: SimLoop, db: SimDb, life: Life, clock: SimClock) -> None:
        planned, start_s = life.faults, loop.time()
        db.faults = replace(
            planned,
            full=[(start_s + begin, start_s + end) for begin, end in planned.full],
            low=[(start_s + begin, start_s + end) for begin, end in planned.low],
        )

        def step(by_ms: int) -> None:
            self.world.say("step", by_ms)
            self.world.stepped_ms += by_ms
            clock.stepped_ms += by_ms
            clock.was_set = True

        for at_s, by_ms in life.steps_ms:
            loop.call_later(at_s, step, by_ms)

    async def _until_failed(self, service: SimService, db: SimDb) -> None:
        try:
            await service.wait_failed()
        except ShoestringError as error:
            if not db.injected:
                self.world.fail("daemon_lives", f"{type(error).__name__}: {error}; {error.__cause__!r}")
            self.world.say("failed", type(error).__name__)
        except Exception as error:  # noqa: BLE001 - whatever kills a role is what we look for
            self.world.fail("daemon_lives", f"{error!r}")

    def _complain(self, _loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        self.world.fail("daemon_lives", f"{context.get('message')}: {context.get('exception')!r}")

    async def _play(self, service: SimService, life: Life) -> bool:
        outside = self._producers.begin(life.actions, life.active_s)
        await asyncio.sleep(life.active_s)
        if life.ending in (Ending.DRAIN, Ending.BURST):
            await asyncio.gather(*outside)
            await self._drain(service)
        if life.ending is Ending.DRAIN:
            await self._check_rest(service)
        await self._stop(service, life)
        for each in outside:  # a stop does not wait for who is still asking
            each.cancel()
        await asyncio.gather(*outside, return_exceptions=True)
        return True

    async def _stop(self, service: SimService, life: Life) -> None:
        world, loop = self.world, self.world.loop
        assert loop is not None
        began_s = loop.time()
        world.say("stop")
        if life.hurries_s is not None:
            loop.call_later(life.hurries_s, service.hurry)
        await service.stop(life.grace_s)
        took_s = loop.time() - began_s
        grace_s = life.grace_s if life.hurries_s is None else min(life.grace_s, life.hurries_s)
        if took_s > grace_s + self.scenario.config.run.abandon_after_s + 6:
            world.fail("stop_ends", f"{took_s:.1f} s for a grace of {grace_s} s")
        world.say("stopped")

    async def _drain(self, service: SimService) -> None:
        engine = service.engine
        for job in list(engine.books.jobs.values()):
            if job.state is JobState.OPEN and job.spec.source is None:
                await engine.seal_job(job.id, "its producer is gone")
        try:
            await asyncio.wait_for(service.wait_idle(), _DRAIN_S)
        except TimeoutError:
            lanes = {
                (lane.queue.name, lane.user): (lane.ledger.pending, lane.delayed, lane.waiting)
                for lane in engine.books.lanes.values() if lane.ledger.pending
            }  # fmt: skip
            jobs = [job.progress() for job in engine.books.jobs.values()]
            self.world.fail("drains", f"after {_DRAIN_S} s: {lanes} {jobs}")
        self.world.say("drained")
        await engine.flush()
        rest.check_waiting(self.world, engine, self.dbs[-1]._viewer_conn)

    async def _check_rest(self, service: SimService) -> None:
        engine = service.engine
        await engine.flush()
        await asyncio.sleep(40)
        commits = engine.committer.commits
        rest.check_nothing_held(self.world, engine)
        rest.check_books(self.world, engine, self.dbs[-1]._viewer_conn)
        await asyncio.sleep(60)
        if engine.committer.commits != commits:
            self.world.fail("idle_writes_nothing", f"{engine.committer.commits - commits} commits in a minute")


def _kill() -> None:
    raise Killed
