"""One generation of the shipped service in the simulation: its own disk, clock and dice, everything else as shipped."""

from __future__ import annotations

import asyncio
from random import Random

from shoestring.config import Config
from shoestring.engine.engine import Engine
from shoestring.engine.register import Register, read_suspects
from shoestring.engine.registry import Registry
from shoestring.service import Service
from shoestring.store.opening import begin_generation
from tests.sim.disk import SimDb
from tests.sim.world import SimClock


class SimService(Service):
    """`Service` with another start: the one place where the machine's disk, clock and dice come in."""

    def __init__(self, *, config: Config, registry: Registry, db: SimDb, clock: SimClock, rng: Random) -> None:
        super().__init__(config=config, registry=registry)
        self.sim_db = db
        self._clock = clock
        self._rng = rng
        self.suspects: list[tuple[int, int]] = []

    async def start(self) -> None:
        database, run = self._config.database, self._config.run
        self._db = self.sim_db  # type: ignore[assignment]
        register_path = self._register_path()
        died, self.suspects = read_suspects(register_path)
        found = await self.sim_db.write(begin_generation, died, self.suspects)
        await self.sim_db.sync()
        self._register = Register(register_path, slots=2 * run.slots, generation=found.generation)
        self.engine = Engine(
            db=self.sim_db, clock=self._clock, rng=self._rng, config=self._config, registry=self._registry,
            register=self._register, database=database,
        )  # fmt: skip
        self.engine.suspects = found.crashed
        self._failed = asyncio.get_running_loop().create_future()
        self.engine.open(found, failed=self._failed)
        for role in self.engine.roles():
            self._start_role(role)
