"""`kill -9` at random moments under load: what was acknowledged runs, and the books are right at the end.

A moment is drawn as an amount of progress, not of time: so many more calls have run, or the daemon has just said that
it is ready, or it has only just taken its lock. So each seed means the same on a slow machine as on a fast one.

Never are two lives in a row cut short at their start. A task that ran at three crashes is taken for their cause and
discarded, and a killer who only ever strikes when the oldest tasks have just begun makes them look just like that.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Coroutine
from pathlib import Path

import msgspec
import pytest

from shoestring.client import Client
from shoestring.core.model import Entry, JobSpec, JobState, Progress, SourceCall, Status
from tests.system.conftest import PATIENCE_S, Daemon, Ear, Start, wait_until

APP = """
import asyncio, os
from shoestring import Page, Shoestring

app = Shoestring()
ITEMS, PAGE = 2_000, 250


def book(name: str, line: str) -> None:
    file = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(file, line.encode() + b"\\n")
    os.close(file)


@app.task(name="note")
async def note(n: int) -> None:
    await asyncio.sleep(0.001)  # so that a kill finds some of them running
    book("ran", str(n))


@app.source(name="pages")
async def pages(cursor: str | None, *, first: int) -> Page[int]:
    begin = int(cursor or 0)
    end = begin + PAGE
    return Page(list(range(first + begin, first + end)), next=str(end) if end < ITEMS else None)


@app.task(name="finish")
async def finish(job: str) -> None:
    book("finished", job)
    if not os.path.exists("may_finish"):
        await asyncio.Event().wait()
"""

#: At most SLOTS * CHUNK calls are under way at once, fewer than a life that is not cut short at its start sees done: so
#: those who ran at one kill are through before the next that can find them. The register stands in the test's folder.
SLOTS, CHUNK = 20, 5
CALLS_IN_A_LIFE = (120, 400)
CONFIG = 'app = "noting:app"\nruntime_dir = "{}"\n[run]\nslots = {}\n[store]\nreserve_mib = 0\nballast_mib = 1\n'

#: As many items as the app's source has.
ITEMS = 2_000
SLICE = 50  # items in one append

#: (seed, kills): what is tried at every run, and the 200 kills of a campaign.
KILLS = [(1, 8), *(pytest.param(seed, 20, marks=pytest.mark.campaign) for seed in range(2, 12))]
#: Fewer at a time: the items of a job must last until the last kill.
KILLS_OF_JOBS = [(1, 4), *(pytest.param(seed, 8, marks=pytest.mark.campaign) for seed in range(2, 27))]


class Killer:
    """Starts daemons one after the other and kills them at moments drawn from a seed."""

    def __init__(self, start: Start, folder: Path, seed: int) -> None:
        self._start = start
        self._folder = folder
        self._dice = random.Random(seed)
        self._was_early = False
        (folder / "noting.py").write_text(APP)

    def start(self, *options: str) -> Daemon:
        return self._start(*options, config=CONFIG.format(self._folder, SLOTS))

    def cut_one_life_short(self) -> None:
        daemon = self.start()
        draw = 1.0 if self._was_early else self._dice.random()
        self._was_early = draw < 0.3
        if draw < 0.15:
            wait_until(lambda: f'"pid":{daemon.process.pid},' in self._lock(), "the daemon's lock")
        else:
            daemon.wait_ready()
        if not self._was_early:
            goal = len(self.lines("ran")) + self._dice.randrange(*CALLS_IN_A_LIFE)
            wait_until(lambda: len(self.lines("ran")) >= goal, f"{goal} calls")
        self.kill(daemon)

    def kill(self, daemon: Daemon) -> None:
        assert daemon.process.poll() is None, daemon.end()
        daemon.process.kill()
        daemon.end()
        daemon.manager.forget()

    def drain(self) -> None:
        daemon = self.start("--burst")
        assert daemon.end() == 0, daemon.stderr
        daemon.manager.forget()

    def lines(self, name: str) -> list[str]:
        path = self._folder / name
        return path.read_text().split() if path.exists() else []

    def _lock(self) -> str:
        path = self._folder / "shoestring.db.lock"
        return path.read_text() if path.exists() else ""


class Background(threading.Thread):
    """Runs a coroutine beside the test; `finish` raises what it raised."""

    def __init__(self, work: Coroutine[None, None, None]) -> None:
        super().__init__(daemon=True)
        self._work = work
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            asyncio.run(self._work)
        except BaseException as error:  # noqa: BLE001 - raised again where somebody looks
            self._error = error

    def finish(self) -> None:
        self.join(PATIENCE_S)
        if self._error is not None:
            raise self._error
        assert not self.is_alive(), "the producer hangs"


def patient_client(folder: Path) -> Client:
    return Client(folder / "shoestring.sock", connect_timeout=PATIENCE_S, reconnect_timeout=PATIENCE_S)


def status_of(daemon: Daemon) -> Status:
    """Ask as an operator would."""
    told = subprocess.run(
        [sys.executable, "-m", "shoestring", "status", "--json"], cwd=daemon.folder, capture_output=True, check=True
    )
    return msgspec.json.decode(told.stdout, type=Status)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kills"), KILLS)
def test_every_acknowledged_task_runs_whatever_was_killed(start: Start, tmp_path: Path, seed: int, kills: int) -> None:
    """The promise. The books must say it too: who cannot trust them cannot find out what was lost."""
    killer = Killer(start, tmp_path, seed)
    acknowledged: list[int] = []
    numbers, enough = itertools.count(), threading.Event()

    async def produce() -> None:
        async with patient_client(tmp_path) as client:
            await asyncio.gather(*(enqueue_on(client) for _ in range(8)))

    async def enqueue_on(client: Client) -> None:
        while not enough.is_set():
            n = next(numbers)
            await client.enqueue("note", {"n": n})
            acknowledged.append(n)

    producer = Background(produce())
    for _ in range(kills):
        killer.cut_one_life_short()
    last = killer.start()
    last.wait_ready()
    enough.set()
    producer.finish()
    killer.kill(last)

    killer.drain()
    killer.start().wait_ready()
    status = status_of(last)
    ran = [int(line) for line in killer.lines("ran")]
    assert sorted(acknowledged) == list(range(len(acknowledged)))  # the client gave none of them up
    assert set(acknowledged) == set(ran)
    # Stored more than once is what lost its answer to a kill, run more than once what lost its outcome.
    assert len(acknowledged) <= status.ledger.accepted <= len(ran)
    assert (status.ledger.accepted, 0) == (status.ledger.completed, status.pending)
    assert (0, 0, 0) == (status.ledger.discarded, status.ledger.cancelled, status.ledger.dropped)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "kills"), KILLS_OF_JOBS)
def test_jobs_reach_every_item_and_their_end_whatever_was_killed(
    start: Start, tmp_path: Path, seed: int, kills: int
) -> None:
    """Nobody looks through a million items for the one that is missing: the count of the job is the proof.

    `then` is stored in the transaction that counts the last item, so once for each job, and it is run at least once:
    here exactly twice, since the daemon is killed while both run for the first time.
    """
    killer = Killer(start, tmp_path, seed)
    opened: list[int] = []
    slices = threading.Semaphore()  # one is appended at once, the others life by life

    async def fan_out() -> None:
        async with patient_client(tmp_path) as client:
            pages = SourceCall(name="pages", body=raw({"first": ITEMS}))
            then = Entry("finish", raw({"job": "pages"}))
            opened.append(await client.open_job(JobSpec(handler="note", chunk=CHUNK, source=pages, then=then)))
            then = Entry("finish", raw({"job": "items"}))
            opened.append(job := await client.open_job(JobSpec(handler="note", chunk=CHUNK, then=then)))
            for seq, begin in enumerate(range(0, ITEMS, SLICE)):
                await asyncio.to_thread(slices.acquire)
                await client.append_items(job, seq, raw(list(range(begin, begin + SLICE))))
            await client.seal_job(job)

    producer = Background(fan_out())
    for _ in range(kills):
        killer.cut_one_life_short()
        slices.release(ITEMS // SLICE // (kills + 1))
    last = killer.start()
    slices.release(ITEMS)
    wait_until(lambda: len(killer.lines("finished")) == 2, "both jobs' `then`")
    producer.finish()
    killer.kill(last)

    (tmp_path / "may_finish").touch()
    killer.drain()
    killer.start().wait_ready()
    status = status_of(last)
    jobs = [msgspec.convert(last.call("job.progress", {"job_id": job})["result"], Progress) for job in opened]
    assert (0, 0) == (status.jobs_open, status.discarded_kept)
    assert {str(n) for n in range(2 * ITEMS)} == set(killer.lines("ran"))
    assert [(JobState.DONE, ITEMS, ITEMS, 0)] * 2 == [(job.state, job.total, job.done, job.failed) for job in jobs]
    assert Counter(killer.lines("finished")) == {"items": 2, "pages": 2}
    assert (2 * ITEMS + 2, 2 * ITEMS + 2, 0) == (status.ledger.accepted, status.ledger.completed, status.pending)


@pytest.mark.slow
def test_a_start_that_is_killed_counts_no_crash_twice(start: Start, told: Ear, tmp_path: Path) -> None:
    """A daemon that is killed while it recovers finds the same suspects again; three times, and one was discarded.

    The register is put back as it was before the start: so it looks to the next one when the kill came after the
    crashes were counted and before the register was begun anew.
    """
    first = start(config=f'app = "jobs:app"\nruntime_dir = "{tmp_path}"')
    first.wait_ready()
    first.call("enqueue", {"tasks": [["hang", {}]]})
    told.wait_for("hanging")
    first.process.kill()
    first.end()
    (register,) = tmp_path.glob("*.running")
    suspects = register.read_bytes()

    for _ in range(3):
        again = start(config=f'app = "jobs:app"\nruntime_dir = "{tmp_path}"')
        again.wait_ready()
        status = again.call("status", {})["result"]
        assert isinstance(status, dict)
        assert (1, 0) == (status["pending"], status["discarded_kept"])
        told.wait_for("hanging")
        again.process.kill()
        again.end()
        register.write_bytes(suspects)


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
