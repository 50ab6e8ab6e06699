"""The scene: a job per user blocks all followers of an account, while the daemon is killed as often as was asked.

A scene is a coroutine from (stage, options, screen) to a Report. This one looks at the daemon and at the API four times
a second, draws what it saw, and kills when a drawn share of the items is settled: a share and not a time, so that
the kills spread over the run on a fast and on a slow machine, and a random moment more, so that they hit any
point between two commits. Each life lasts for two chunks, if so many kills leave room for it: a chunk that runs at
two kills in a row is under suspicion of causing them, and the daemon then runs it alone, which is right, and would
make a demo of a hundred such chunks minutes long.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final, TypeVar

import msgspec

from shoestring.client import Client
from shoestring.core.model import Progress, Status
from shoestring.demo import Options, jobs
from shoestring.demo.books import balance
from shoestring.demo.gauges import Disk, Pace, Process
from shoestring.demo.http import HttpClient
from shoestring.demo.report import Kill, Report
from shoestring.demo.screen import Screen, UserView, View
from shoestring.demo.social import Rules, Tally, troll_of
from shoestring.demo.stage import Stage

#: The API's window in seconds of real life.
WINDOW_S: Final = 900.0
#: What the windows of all users together grant a second. Below what the daemon and the stub manage on two slow cores,
#: so that it is the windows people see at work.
GRANTED_PER_S: Final = 1_900
#: And no user gets through with fewer windows than this, however few the items.
WINDOWS_MIN: Final = 5

LOOK_EVERY_S: Final = 0.25
#: How long the daemon may be away, starting included, before the demo gives up.
AWAY_S_MAX: Final = 30.0

#: Items to a task.
CHUNK: Final = 50

_NAMES: Final = (
    "ada",
    "ben",
    "cleo",
    "dan",
    "eve",
    "finn",
    "gus",
    "hana",
    "ivo",
    "jun",
    "kai",
    "lea",
    "mio",
    "nora",
    "olga",
)

T = TypeVar("T")


async def block_followers(stage: Stage, options: Options, screen: Screen) -> Report:
    """Play the scene and return what came out of it. Raises ChildFailed if a process ends by itself."""
    rules = rules_for(options)
    api = HttpClient(stage.start_stub(rules))
    stage.start_daemon()
    client = Client(stage.socket, connect_timeout=AWAY_S_MAX, reconnect_timeout=AWAY_S_MAX)
    try:
        scene = _Scene(stage, options, screen, rules, client, api)
        await scene.alive(client.connect())
        return await scene.play()
    finally:
        await client.aclose()
        await api.aclose()


def rules_for(options: Options) -> Rules:
    """Return an API in which every user runs into the windows, and all together take about a minute by default."""
    share, rest = divmod(options.items, options.users)
    window_s = WINDOW_S / options.time_scale
    latency_ms_min, latency_ms_max = options.latency_ms
    return Rules(
        seed=options.seed,
        users=[_NAMES[place] if place < len(_NAMES) else f"user-{place + 1}" for place in range(options.users)],
        followers=[share + (place < rest) for place in range(options.users)],
        window_s=window_s,
        blocks_per_window=max(1, min(ceil(share / WINDOWS_MIN), int(GRANTED_PER_S * window_s / options.users))),
        latency_ms_min=latency_ms_min,
        latency_ms_max=latency_ms_max,
    )


@dataclass(frozen=True, slots=True)
class _Look:
    """What the daemon and the API said at one moment."""

    status: Status
    progress: Mapping[str, Progress]  # by user
    tallies: Sequence[Tally]

    @property
    def settled(self) -> int:
        return sum(job.done + job.failed for job in self.progress.values())

    @property
    def finished(self) -> bool:
        return self.status.pending == 0 and all(job.finished for job in self.progress.values())


class _Scene:
    def __init__(
        self, stage: Stage, options: Options, screen: Screen, rules: Rules, client: Client, api: HttpClient
    ) -> None:
        self._stage = stage
        self._options = options
        self._screen = screen
        self._rules = rules
        self._client = client
        self._api = api
        self._loop = asyncio.get_running_loop()
        self._draws = random.Random(options.seed)
        self._kill_at = sorted(self._draws.uniform(0.02, 0.95) * options.items for _ in range(options.kill))
        self._kills: list[Kill] = []
        two_chunks_s = 2 * CHUNK * sum(options.latency_ms) / 2 / 1000
        self._life_s_min = min(two_chunks_s, options.items / GRANTED_PER_S / (2 * (options.kill + 1)))
        self._life_began = self._loop.time()
        self._jobs: dict[str, int] = {}
        self._disk = Disk(stage.folder)
        self._disk_pace, self._items_pace = Pace(over_s=5.0), Pace(over_s=3.0)
        self._rss_bytes_max, self._cpu_s, self._written_bytes = 0, 0.0, 0

    async def play(self) -> Report:
        disk_before, began = self._disk.read(self._process), self._loop.time()
        for user in self._rules.users:
            self._jobs[user] = await _open_job(user)
        last = await self._watch(began)
        seconds = self._loop.time() - began
        disk_written = self._disk.read(self._process) - disk_before
        self._account()
        daemon_exit = await asyncio.to_thread(self._stage.stop_daemon)
        books = balance(await self._tallies(), last.progress, last.status.ledger)
        if not books.balanced or daemon_exit != 0:
            self._stage.keep = True
        return Report(
            items=self._options.items,
            seconds=seconds,
            seed=self._options.seed,
            time_scale=self._options.time_scale,
            blocks_per_window=self._rules.blocks_per_window,
            books=books,
            kills=self._kills,
            kills_planned=self._options.kill,
            disk_written=disk_written,
            disk_unit=self._disk.unit,
            disk_source=self._disk.source,
            daemon_written_bytes=self._written_bytes,
            rss_bytes_max=self._rss_bytes_max,
            daemon_cpu_s=self._cpu_s,
            daemon_exit=daemon_exit,
            folder=str(self._stage.folder) if self._stage.keep else None,
        )

    async def alive(self, answer: Awaitable[T]) -> T:
        """Return the answer; raise ChildFailed at once, with what it said, if a process ends by itself meanwhile."""
        answering = asyncio.ensure_future(answer)
        try:
            while not answering.done():
                self._stage.check()
                await asyncio.wait([answering], timeout=0.1)
            return answering.result()
        finally:
            answering.cancel()

    async def _watch(self, began: float) -> _Look:
        """Look, draw and kill until nothing is left to do."""
        while True:
            look = await self.alive(self._look())
            self._draw(look, self._loop.time() - began)
            if look.finished:
                return look
            if self._kill_due(look):
                await asyncio.sleep(self._draws.uniform(0.0, LOOK_EVERY_S))
                await self._kill(look)
            else:
                await asyncio.sleep(LOOK_EVERY_S)

    def _kill_due(self, look: _Look) -> bool:
        next_kill = len(self._kills)
        lived_s = self._loop.time() - self._life_began
        return (
            next_kill < len(self._kill_at) and look.settled >= self._kill_at[next_kill] and lived_s >= self._life_s_min
        )

    async def _look(self) -> _Look:
        asked = asyncio.gather(*(self._client.progress(job) for job in self._jobs.values()))
        status, tallies, progress = await asyncio.gather(self._client.status(), self._tallies(), asked)
        return _Look(status, dict(zip(self._jobs, progress, strict=True)), tallies)

    async def _tallies(self) -> list[Tally]:
        return msgspec.json.decode((await self._api.request("GET", "/stats")).body, type=list[Tally])

    async def _kill(self, look: _Look) -> None:
        self._account()
        self._stage.kill_daemon()
        killed_at = self._loop.time()
        self._stage.start_daemon()
        await self.alive(self._client.ping())
        self._life_began = self._loop.time()
        self._kills.append(Kill(look.settled, round(self._life_began - killed_at, 3)))

    @property
    def _process(self) -> Process:
        assert self._stage.daemon is not None
        return Process(self._stage.daemon.pid)

    def _account(self) -> None:
        """Take what this life of the daemon has used, before it ends."""
        self._rss_bytes_max = max(self._rss_bytes_max, self._process.rss_bytes_max())
        self._cpu_s += self._process.cpu_s()
        self._written_bytes += self._process.written_bytes()

    def _draw(self, look: _Look, elapsed_s: float) -> None:
        parked = {lane.user: lane.parked_until_ms or 0 for lane in look.status.parked}
        users = []
        for tally in look.tallies:
            job = look.progress[tally.user]
            if job.finished:
                state = "done"
            elif tally.user in parked:
                state = f"parked {max(0, parked[tally.user] - look.status.now_ms) / 1000:.1f} s"
            else:
                state = "running"
            users.append(
                UserView(
                    tally.user,
                    tally.followers,
                    job.done + job.failed,
                    tally.blocked + tally.gone + tally.suspended,
                    tally.limited_blocks + tally.limited_pages,
                    state,
                )
            )
        process = self._process
        self._screen.draw(
            View(
                elapsed_s=elapsed_s,
                items=self._options.items,
                done=look.settled,
                items_per_s=self._items_pace.add(elapsed_s, look.settled),
                running=look.status.running,
                parked=len(parked),
                lanes=len(users),
                disk_per_s=self._disk_pace.add(elapsed_s, self._disk.read(process)),
                disk_unit=self._disk.unit,
                disk_name=self._disk.name,
                rss_bytes=process.rss_bytes(),
                wal_bytes=look.status.wal_bytes,
                kills=len(self._kills),
                kills_planned=self._options.kill,
                daemon=f"pid {process.pid}, life {self._stage.lives}",
                users=users,
            )
        )


async def _open_job(user: str) -> int:
    """Ask for the work as any program would that has the app: see `jobs`."""
    pages = jobs.followers.of(account=troll_of(user), user=user)
    job = await jobs.block.using(user=user).fan_out(pages, chunk=CHUNK, then=jobs.tell.call(user))
    return job.id
