"""The producers and people of a run: they enqueue, fan out, cancel, replay, look, and remember what they were told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Final

import msgspec

from shoestring.core.errors import NotFound, PayloadTooLarge, ShoestringError
from shoestring.core.model import Duplicate, Durability, Entry, JobSpec, JobState, Options, SourceCall, TaskState
from shoestring.engine.engine import Engine
from tests.sim.scenario import Scenario
from tests.sim.script import Act, Step, Subject, draw_steps
from tests.sim.stage import SimJob
from tests.sim.world import Cancelled, World

_SHARED: Final = msgspec.Raw(b'{"tag":"shared"}')


class Producers:
    """Everybody outside, across all generations."""

    def __init__(self, *, world: World, scenario: Scenario, rng: Random) -> None:
        self._world = world
        self._scenario = scenario
        self._rng = rng
        self.jobs: dict[int, SimJob] = {}
        self._next_n = 1
        self._streams: list[_Stream] = []

    @property
    def _engine(self) -> Engine:
        assert self._world.engine is not None
        return self._world.engine

    def begin(self, actions: int, active_s: float) -> list[asyncio.Task[None]]:
        """Start what happens in one generation."""
        choices: list[tuple[Callable[[], Coroutine[Any, Any, None]], int]] = [
            (self._enqueue, 10), (self._burst, 2), (self._stream, 2), (self._pull, 2), (self._cancel_task, 3),
            (self._cancel_job, 1), (self._replay, 1), (self._look, 1),
        ]  # fmt: skip
        if self._scenario.calm:
            choices = [(self._enqueue, 1)]
        going = [asyncio.ensure_future(self._surely(stream.resume())) for stream in self._streams if not stream.ended]
        for _ in range(actions):
            act = self._rng.choices([each for each, _ in choices], [weight for _, weight in choices])[0]
            going.append(asyncio.ensure_future(self._later(self._rng.uniform(0, active_s), act)))
        return going

    async def _later(self, delay_s: float, act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        await asyncio.sleep(delay_s)
        await self._surely(act())

    async def _surely(self, act: Coroutine[Any, Any, None]) -> None:
        try:
            await act
        except Exception as error:  # noqa: BLE001 - nobody outside may be told of what is not their mistake
            self._world.fail("daemon_lives", f"a producer was told {error!r}")

    def power_was_cut(self) -> None:
        """Give up the streams that were under way: the daemon may have forgotten slices it had taken."""
        for stream in self._streams:
            stream.ended = True

    # -- single tasks ---------------------------------------------------------------------------------------------

    def _subject(self, handler: str, *, steps: list[Step] | None = None, heavy: bool = False) -> Subject:
        subject = Subject(self._next_n, handler, steps or draw_steps(self._rng, self._scenario.temper))
        self._next_n += 1
        if heavy:
            subject.n += 10**15
        self._world.subjects[subject.n] = subject
        return subject

    async def _enqueue(self) -> None:
        await self._submit([self._draw_entry() for _ in range(self._rng.choice((1, 1, 2, 5)))])

    async def _burst(self) -> None:
        await self._submit([self._draw_entry() for _ in range(self._rng.choice((10, 25)))])

    def _draw_entry(self) -> tuple[Subject, Entry]:
        rng, world = self._rng, self._world
        subject = self._subject(rng.choice(self._scenario.handlers))
        if self._scenario.poison and rng.random() < 0.03:
            subject.steps = [Step(Act.KILL, rng.choice((0.0, 0.1)))]
        options: dict[str, Any] = {"user": rng.choice("abcd"[: self._scenario.users])}
        if rng.random() < 0.3:
            options["delay_ms"] = rng.choice((1, 30, 700, 3_000, 9_000))
        if rng.random() < 0.2:
            options["priority"] = rng.choice((-100, -1, 5, 100))
        if rng.random() < 0.1 and not self._scenario.calm:
            options["expires_in_ms"] = rng.choice((1, 500, 5_000))
        if rng.random() < 0.15:
            options["unique"] = rng.choice(("red", "green", "blue"))
        if rng.random() < 0.15:
            options["durability"] = rng.choice(tuple(Durability))
        now_ms = world.now_ms()
        if "delay_ms" in options:
            subject.due_at_ms = now_ms + options["delay_ms"]
        if "expires_in_ms" in options:
            subject.expires_at_ms = now_ms + options["expires_in_ms"]
        subject.user, subject.unique = options["user"], options.get("unique")
        durability = options.get("durability")
        declared = Durability.VOLATILE if subject.handler == "careless" else None
        subject.volatile = (durability or declared) is Durability.VOLATILE
        subject.volatile = subject.volatile and subject.unique is None
        subject.durable = (durability or (subject.handler == "careful" and Durability.DURABLE)) is Durability.DURABLE
        return subject, Entry(subject.handler, msgspec.Raw(b'{"n":%d}' % subject.n), Options(**options))

    async def _submit(self, drawn: list[tuple[Subject, Entry]]) -> None:
        world = self._world
        world.say("submit", *(f"{subject.n}:{subject.handler}" for subject, _ in drawn))
        try:
            with world.asks("submit"):
                answers = await self._engine.submit([entry for _, entry in drawn])
        except ShoestringError as error:
            world.say("refused", drawn[0][0].n, type(error).__name__)
            for subject, _ in drawn:
                subject.accepted = False
            return
        for (subject, _), answer in zip(drawn, answers, strict=True):
            if isinstance(answer, int):
                subject.accepted, subject.task_id, subject.accepted_in = True, answer, world.generation
                subject.told = world.committed_seq
            else:
                subject.accepted = False
            said = f"like {answer.task_id}" if isinstance(answer, Duplicate) else type(answer).__name__
            world.say("answer", subject.n, answer if isinstance(answer, int) else said)

    # -- fan-outs -------------------------------------------------------------------------------------------------

    def _draw_job(self, *, streamed: bool) -> tuple[SimJob, JobSpec]:
        rng = self._rng
        number = len(self.jobs) + 1
        handler = rng.choice(("item", "item", "batch", "paced_item"))
        pages = []
        for _ in range(rng.choice((1, 2, 4))):
            heavy = streamed and rng.random() < 0.05  # behind light ones, it makes a chunk too large
            count = rng.choice((0, 1, 5, 12))
            subjects = [self._subject(handler, heavy=heavy and place > 7) for place in range(count)]
            for subject in subjects:
                subject.job = number
            pages.append([subject.n for subject in subjects])
        job = SimJob(number, pages, streamed=streamed, every_ms=rng.choice((0, 0, 1_000)))
        then = None
        if rng.random() < 0.6:
            after = self._subject("plain")
            after.is_then, after.job, job.then = True, number, after.n
            then = Entry("plain", msgspec.Raw(b'{"n":%d}' % after.n), Options(user=rng.choice("abxy")))
        options: dict[str, Any] = {"user": rng.choice("abcd"[: self._scenario.users])}
        if rng.random() < 0.2:
            options["priority"] = rng.choice((-5, 50))
        if rng.random() < 0.1:
            options["expires_in_ms"] = rng.choice((500, 4_000))
            job.expires = True
        source = None
        if not streamed:
            source = SourceCall(name="pages", body=msgspec.Raw(b'{"job":%d}' % number))
            self._draw_troubles(job)
        self.jobs[number] = job
        return job, JobSpec(
            handler=handler, body=_SHARED, options=Options(**options), chunk=rng.choice((1, 3, 8)),
            every_ms=job.every_ms,
            source=source, then=then,
        )  # fmt: skip

    def _draw_troubles(self, job: SimJob) -> None:
        for page in range(len(job.pages)):
            steps = [step for step in draw_steps(self._rng, self._scenario.temper) if step.act in _SOURCE_ACTS]
            if steps:
                job.troubles[page] = steps

    async def _open(self, job: SimJob, spec: JobSpec) -> bool:
        self._world.say("open", job.number, spec.handler)
        try:
            with self._world.asks("open"):
                job.job_id = await self._engine.open_job(spec)
        except ShoestringError as error:
            job.refused = True
            self._world.say("refused", f"job {job.number}", type(error).__name__)
            return False
        job.opened = self._world.committed_seq
        self._world.say("opened", job.number, job.job_id)
        return True

    async def _pull(self) -> None:
        job, spec = self._draw_job(streamed=False)
        await self._open(job, spec)

    async def _stream(self) -> None:
        job, spec = self._draw_job(streamed=True)
        if await self._open(job, spec):
            stream = _Stream(self._world, job, error="it broke" if self._rng.random() < 0.1 else None)
            self._streams.append(stream)
            await stream.resume()

    # -- people ---------------------------------------------------------------------------------------------------

    async def _cancel_task(self) -> None:
        world = self._world
        ids = [each.task_id for each in world.subjects.values() if each.task_id is not None][-15:]
        ids += [task_id for _, task_id in list(world.lives)[-10:]]
        if not ids:
            return
        task_id = self._rng.choice(ids)
        for n in world.chunks.get(task_id, []):
            world.subjects[n].maybe_cancelled = True
        for n, life in world.lives:
            if life == task_id:
                world.subjects[n].maybe_cancelled = True
        for each in world.subjects.values():
            if each.task_id == task_id:
                each.maybe_cancelled = True
        world.asked_to_cancel.add(task_id)
        world.say("cancel", task_id)
        try:
            with world.asks("cancel"):
                view = await self._engine.cancel_task(task_id)
        except ShoestringError as error:
            world.say("refused", f"cancel {task_id}", type(error).__name__)
            return
        world.say("cancelled", task_id)
        world.cancelled_tasks[task_id] = Cancelled(view.state is TaskState.RUNNING, world.committed_seq)

    async def _cancel_job(self) -> None:
        world = self._world
        known = [job for job in self.jobs.values() if job.job_id is not None]
        if not known:
            return
        job = self._rng.choice(known)
        assert job.job_id is not None
        job.maybe_cancelled = True
        world.say("cancel job", job.number)
        try:
            with world.asks("cancel job"):
                progress = await self._engine.cancel_job(job.job_id)
        except ShoestringError as error:
            world.say("refused", f"cancel job {job.number}", type(error).__name__)
            return
        world.say("cancelled job", job.number, progress.state.value)
        if progress.state is JobState.CANCELLED:
            world.cancelled_jobs[job.job_id] = world.committed_seq

    async def _replay(self) -> None:
        world = self._world
        world.say("replay")
        world.replays += 1
        try:
            with world.asks("replay"):
                if self._rng.random() < 0.5:
                    count = await self._engine.replay(all=True)
                else:
                    count = await self._engine.replay(handler=self._rng.choice(self._scenario.handlers))
        except ShoestringError as error:
            world.say("refused", "replay", type(error).__name__)
            return
        world.replayed += count
        world.say("replayed", count)

    async def _look(self) -> None:
        engine = self._engine
        status = engine.status()
        self._world.say("status", status.pending, status.running, status.delayed)
        listed = await engine.tasks(limit=20)
        for view in listed[:3]:
            try:
                await engine.task(view.task_id)
            except NotFound:
                pass
        for progress in await engine.jobs():
            if progress.accepted != progress.done + progress.failed + progress.cancelled + progress.pending:
                self._world.fail("job_counts", f"{progress}")
        await engine.discarded(limit=5)


_SOURCE_ACTS: Final = (Act.FAIL, Act.RETRY_LATER, Act.SNOOZE, Act.RATE_LIMITED, Act.DISCARD, Act.GIVE_UP, Act.HANG)


class _Stream:
    """A producer that hands a job's items over slice by slice, and goes on after a restart where it was."""

    def __init__(self, world: World, job: SimJob, *, error: str | None) -> None:
        self._world = world
        self._job = job
        self._error = error
        self._acked: set[int] = set()
        self.ended = False

    async def resume(self) -> None:
        world, job = self._world, self._job
        assert world.engine is not None and job.job_id is not None
        error = self._error
        while left := [seq for seq in range(len(job.pages)) if seq not in self._acked]:
            # Now and then the next one is on its way before the answer to the first.
            seqs = left[: 2 if (world.seed + left[0]) % 3 == 0 else 1]
            results = await asyncio.gather(*(self._append(seq) for seq in seqs))
            if None in results:
                error = "an item was refused"
                break
            if not all(results):
                await asyncio.sleep(0.7)
        while True:
            try:
                await world.engine.seal_job(job.job_id, error)
                break
            except NotFound:
                break
            except ShoestringError:
                await asyncio.sleep(0.7)
        world.say("sealed", job.number)
        self.ended = True

    async def _append(self, seq: int) -> bool | None:
        """Hand over one slice: True if it was taken, None if it never will be."""
        world, job = self._world, self._job
        assert world.engine is not None and job.job_id is not None
        items = msgspec.Raw(msgspec.json.encode(job.pages[seq]))
        world.say("append", job.number, seq)
        world.grew_s = asyncio.get_running_loop().time()
        try:
            with world.asks("append"):
                await world.engine.append_items(job.job_id, seq, items)
        except ShoestringError as error:
            world.say("refused", f"slice {seq} of job {job.number}", type(error).__name__)
            return None if job.maybe_cancelled or isinstance(error, PayloadTooLarge) else False
        self._acked.add(seq)
        job.taken[seq] = world.committed_seq
        world.say("taken", job.number, seq)
        return True
