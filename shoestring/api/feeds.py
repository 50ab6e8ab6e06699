"""Who is sending the items of which open job, so that a job does not stay open after its producer is gone.

A fan-out is streamed: its job is open until the producer seals it. A producer that is killed in the middle never
will; its job would be waited for for ever, and what comes after it would never come. So when a client that feeds
jobs has lost its connection and has not come back after a while, its jobs are sealed with the reason. The items
that were stored run and are counted as in any job.

Known are the jobs that were opened or appended to in this generation, by clients that said `hello`, and those that
were open when it began: their producers have as long to come back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from shoestring.api.memory import ClientMemory
from shoestring.core.errors import ShoestringError
from shoestring.engine.engine import Engine
from shoestring.log import log

#: Longer than a producer's own restart or a client's attempts to reconnect, shorter than anybody's patience.
AWAY_S: Final = 60.0


class Feeds:
    """The open jobs of each client, and the time left to clients that are away."""

    def __init__(self, engine: Engine, *, away_s: float = AWAY_S) -> None:
        self._engine = engine
        self._away_s = away_s
        self._jobs: dict[ClientMemory, set[int]] = {}
        self._timers: dict[ClientMemory, asyncio.TimerHandle] = {}
        self._sealing: set[asyncio.Task[None]] = set()
        self._orphans: set[int] = set()
        self._orphans_timer: asyncio.TimerHandle | None = None

    def adopt(self, job_ids: Iterable[int]) -> None:
        """Give the jobs that were open when this generation began the same time to have their producer back."""
        self._orphans.update(job_ids)
        if self._orphans:
            loop = asyncio.get_running_loop()
            self._orphans_timer = loop.call_later(self._away_s, self._give_up_orphans)

    def _give_up_orphans(self) -> None:
        for job_id in self._orphans:
            self._start_sealing(job_id)
        self._orphans.clear()

    def note(self, client: ClientMemory, job_id: int, *, is_open: bool) -> None:
        """Take down that `client` opened or appended to a job, or that the job takes no more items."""
        self._orphans.discard(job_id)
        if is_open:
            self._jobs.setdefault(client, set()).add(job_id)
        elif (jobs := self._jobs.get(client)) is not None:
            jobs.discard(job_id)
            if not jobs:
                del self._jobs[client]

    def came(self, client: ClientMemory) -> None:
        """The client has a connection again."""
        if (timer := self._timers.pop(client, None)) is not None:
            timer.cancel()

    def left(self, client: ClientMemory) -> None:
        """The client has lost its connection; its jobs end with it unless it comes back."""
        if client in self._jobs and client not in self._timers:
            loop = asyncio.get_running_loop()
            self._timers[client] = loop.call_later(self._away_s, self._give_up, client)

    def close(self) -> None:
        """Give nobody up any more: it is this end that goes away."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        if self._orphans_timer is not None:
            self._orphans_timer.cancel()

    def _give_up(self, client: ClientMemory) -> None:
        del self._timers[client]
        for job_id in self._jobs.pop(client, ()):
            self._start_sealing(job_id)

    def _start_sealing(self, job_id: int) -> None:
        sealing = asyncio.get_running_loop().create_task(self._seal(job_id))
        self._sealing.add(sealing)
        sealing.add_done_callback(self._sealing.discard)

    async def _seal(self, job_id: int) -> None:
        reason = f"its producer lost its connection and did not come back within {self._away_s:g} s"
        try:
            progress = await self._engine.seal_job(job_id, reason)
        except ShoestringError as error:
            log.warning("job_left_open", job_id=job_id, error=error)
        else:
            if progress.error == reason:  # otherwise somebody had ended it by then
                log.warning("producer_lost", job_id=job_id, accepted=progress.accepted)
