"""What is refused at the door: nothing of it is stored, and the daemon lives on."""

from __future__ import annotations

import msgspec
import pytest

from shoestring.config import LimitsConfig
from shoestring.core.errors import (
    ArgumentError,
    Conflict,
    DiskFull,
    LimitExceeded,
    NotFound,
    PayloadTooLarge,
    QueueFull,
    ShoestringError,
    Unavailable,
    UnknownHandler,
    UsageError,
)
from shoestring.core.model import Charge, Limit, QueueConfig
from tests.engine.conftest import Rig, entry, raw

YEAR_10000_MS = 253_402_300_800_001


@pytest.fixture
async def hello(rig: Rig) -> Rig:
    """A queue with one handler that takes a name."""

    @rig.task()
    async def hello(name: str) -> None: ...

    @rig.task(batch=True)
    async def numbers(ns: list[int]) -> None: ...

    @rig.task(delivery="at_most_once")
    async def once(name: str) -> None: ...

    rig.limits = LimitsConfig(payload_bytes_max=100, user_chars_max=10, unique_chars_max=10)
    await rig.start()
    return rig


@pytest.mark.parametrize(
    ("handler", "body", "options", "error", "says"),
    [
        ("hello", {"name": 5}, {}, ArgumentError, r"hello: argument \$\.name: expected str, got int"),
        ("hello", {}, {}, ArgumentError, "name"),
        ("hello", {"name": "x" * 100}, {}, PayloadTooLarge, "take 111 bytes, at most 100 are allowed"),
        ("unknown", {"name": "x" * 100}, {}, PayloadTooLarge, "unknown: the arguments take 111 bytes"),
        ("hello", {"name": "x"}, {"priority": 101}, ArgumentError, "priority 101 is not within -100..100"),
        ("hello", {"name": "x"}, {"user": "u" * 11}, ArgumentError, "user has 11 characters, at most 10"),
        ("hello", {"name": "x"}, {"user": "a\nb"}, ArgumentError, "no control characters"),
        ("hello", {"name": "x"}, {"queue": ""}, ArgumentError, "a queue's name has 1 to 200 characters"),
        ("hello", {"name": "x"}, {"queue": "q" * 201}, ArgumentError, "a queue's name has 1 to 200 characters"),
        ("hello", {"name": "x"}, {"unique": ""}, ArgumentError, "unique has 1 to 10 characters"),
        ("hello", {"name": "x"}, {"unique": "k" * 11}, ArgumentError, "unique has 1 to 10 characters"),
        ("hello", {"name": "x"}, {"due_at_ms": YEAR_10000_MS}, ArgumentError, "run_after lies outside"),
        ("hello", {"name": "x"}, {"delay_ms": 2**63}, ArgumentError, "run_after lies outside"),
        ("hello", {"name": "x"}, {"expires_at_ms": -1}, ArgumentError, "expires lies outside"),
        ("", {"name": "x"}, {}, ArgumentError, "a handler's name has 1 to 200 characters"),
        ("h\0", {"name": "x"}, {}, ArgumentError, "no control characters"),
    ],
)
async def test_a_task_that_cannot_be_is_refused_and_not_stored(
    hello: Rig, handler: str, body: dict[str, object], options: dict[str, object], error: type[Exception], says: str
) -> None:
    """The producer is there to be told; a queue that finds out later has nobody to tell."""
    (refused, stored) = await hello.submit(entry(handler, body, **options), entry("hello", {"name": "good"}))

    assert type(refused) is error
    assert isinstance(stored, int)
    with pytest.raises(error, match=says):
        raise refused
    await hello.idle()
    assert hello.counts() == {"accepted": 1, "completed": 1}


@pytest.mark.parametrize(
    ("spec", "error", "says"),
    [
        ({"options": {"priority": -2_000}}, ArgumentError, "priority -2000 is not within"),
        ({"options": {"user": "u" * 11}}, ArgumentError, "user has 11 characters"),
        ({"options": {"expires_in_ms": 2**63}}, ArgumentError, "expires lies outside"),
        ({"options": {"unique": "k"}}, ArgumentError, "do not apply to a fan-out"),
        ({"options": {"delay_ms": 5}}, ArgumentError, "do not apply to a fan-out"),
        ({"chunk": 0}, ArgumentError, r"chunk=0 is not within 1\.\.10000"),
        ({"chunk": 10_001}, ArgumentError, "chunk=10001 is not within"),
        ({"every_ms": -1}, ArgumentError, "every is not within 0 and ten years"),
        ({"every_ms": 2**63}, ArgumentError, "every is not within 0 and ten years"),
        ({"body": {"more": 1}}, ArgumentError, "more"),
        ({"handler": "unknown"}, UnknownHandler, "no handler named 'unknown' is declared"),
        ({"handler": "once"}, UsageError, "once is at_most_once"),
        ({"then": entry("hello", {"name": "x"}, priority=1_000)}, ArgumentError, "priority 1000 is not within"),
        ({"then": entry("hello", {"name": 1})}, ArgumentError, "expected str, got int"),
        ({"then": entry("hello", {"name": "x" * 100})}, PayloadTooLarge, "take 111 bytes"),
        ({"then": entry("unknown")}, UnknownHandler, "then= names 'unknown'"),
    ],
)
async def test_a_fan_out_that_cannot_be_is_refused_and_not_stored(
    hello: Rig, spec: dict[str, object], error: type[Exception], says: str
) -> None:
    """What is wrong with a job, its `then` included, must not be found when its last item has ended."""
    with pytest.raises(error, match=says):
        await hello.open_job(**{"handler": "hello", **spec})  # type: ignore[arg-type]

    assert hello.count("jobs") == 0
    assert hello.engine.status().jobs_open == 0


async def test_a_fan_out_from_an_unknown_source_is_refused(hello: Rig) -> None:
    """A job whose items nobody can read would be open for ever."""
    with pytest.raises(UnknownHandler, match="no source named 'pages' is declared"):
        await hello.fan_out_pages("hello", "pages")


async def test_of_a_slice_with_a_chunk_too_large_nothing_is_stored(hello: Rig) -> None:
    """Chunks before the large one would run uncounted, and the job would have done more than it accepted."""
    job_id = await hello.open_job("hello", chunk=1)

    with pytest.raises(PayloadTooLarge, match="a chunk of 1 items takes 123 bytes"):
        await hello.until(hello.engine.append_items(job_id, 0, raw(["a", "b", "x" * 119])))
    await hello.until(hello.engine.append_items(job_id, 0, raw(["a"])))
    await hello.until(hello.engine.seal_job(job_id))

    progress = await hello.job_end(job_id)
    assert [progress.accepted, progress.done] == [1, 1]
    await hello.idle()
    assert hello.counts() == {"accepted": 1, "completed": 1}


async def test_of_a_slice_with_a_wrong_item_nothing_is_stored(hello: Rig) -> None:
    """The error says which item; the producer decides what to do about the others."""
    job_id = await hello.open_job("numbers", chunk=2)

    with pytest.raises(ArgumentError, match=r"item \$\[3\]: expected int, got str") as refused:
        await hello.until(hello.engine.append_items(job_id, 0, raw([1, 2, 3, "four"])))

    assert refused.value.index == 3
    progress = await hello.until(hello.engine.seal_job(job_id, "gave up"))
    assert progress.accepted == 0


async def test_slices_are_taken_in_their_order_and_once(hello: Rig) -> None:
    """A slice that was sent again after a lost connection stores nothing twice."""
    job_id = await hello.open_job("numbers")

    assert await hello.until(hello.engine.append_items(job_id, 0, raw([1, 2]))) == 2
    assert await hello.until(hello.engine.append_items(job_id, 0, raw([1, 2]))) == 2
    with pytest.raises(Conflict, match="slice 2 of job 1 came before slice 1"):
        await hello.until(hello.engine.append_items(job_id, 2, raw([3])))
    await hello.until(hello.engine.seal_job(job_id))
    with pytest.raises((Conflict, NotFound)):
        await hello.until(hello.engine.append_items(job_id, 1, raw([3])))

    assert (await hello.job_end(job_id)).done == 2


async def test_what_a_user_has_no_tokens_for_is_refused_with_when_to_come_back(rig: Rig) -> None:
    """A queue charged at the door takes what it can pay for, and says when it can take more."""
    rig.queues["paid"] = QueueConfig(limit=Limit(capacity=10, rate=2, charge=Charge.ENQUEUE))

    @rig.task(queue="paid")
    async def call(n: int) -> None: ...

    await rig.start()
    answers = await rig.submit(*(entry("call", {"n": n}, user="alice") for n in range(11)))
    (other,) = await rig.submit(entry("call", {"n": 0}, user="bob"))
    refused = answers[10]

    assert all(isinstance(answer, int) for answer in answers[:10])
    assert isinstance(other, int)
    assert isinstance(refused, LimitExceeded)
    assert refused.capacity == 10
    assert 0 < refused.retry_after <= 0.5
    job_id = await rig.open_job("call", options={"user": "carol"})
    with pytest.raises(UsageError, match="11 tokens are wanted at once of a bucket that holds 10"):
        await rig.until(rig.engine.append_items(job_id, 0, raw(list(range(11)))))
    assert await rig.until(rig.engine.append_items(job_id, 0, raw(list(range(10))))) == 10
    await rig.until(rig.engine.seal_job(job_id))
    await rig.idle()


async def test_below_the_reserve_tasks_and_fan_outs_are_refused_alike(hello: Rig) -> None:
    """A fan-out of millions is the first thing a disk that is almost full has no room for; what is stored goes on."""
    job_id = await hello.open_job("numbers")
    await hello.until(hello.engine.append_items(job_id, 0, raw([1])))
    await hello.stop()
    hello.store = msgspec.structs.replace(hello.store, reserve_mib=1 << 20)  # more than any disk of ours
    await hello.start()

    for ask in (
        hello.enqueue("hello", {"name": "x"}),
        hello.open_job("hello"),
        hello.until(hello.engine.append_items(job_id, 1, raw([2]))),
    ):
        with pytest.raises(DiskFull, match="less than the reserve of 1048576 MiB"):
            await ask
    assert not hello.engine.status().accepting
    await hello.until(hello.engine.seal_job(job_id))
    assert (await hello.job_end(job_id)).done == 1


async def test_during_a_stop_tasks_and_fan_outs_are_refused_alike(hello: Rig) -> None:
    """What is told to come back comes to the next generation; what is taken now might never be stored."""
    job_id = await hello.open_job("numbers")
    hello.engine.intake.closed = True

    for ask in (
        hello.enqueue("hello", {"name": "x"}),
        hello.open_job("hello"),
        hello.until(hello.engine.append_items(job_id, 0, raw([1]))),
    ):
        with pytest.raises(Unavailable, match="the daemon is stopping"):
            await ask
    assert not hello.engine.status().accepting


async def test_too_many_that_wait_for_their_commit_are_refused(rig: Rig) -> None:
    """A disk that stalls must not fill the memory with what it has not taken yet."""

    @rig.task()
    async def hello() -> None: ...

    rig.limits = LimitsConfig(submissions_max=3)
    await rig.start()
    await rig.enqueue("hello")
    first = rig.engine.submit([entry("hello") for _ in range(3)])
    second = rig.engine.submit([entry("hello")])

    with pytest.raises(QueueFull) as refused:
        await second
    assert [refused.value.depth, refused.value.limit] == [3, 3]
    assert len(await rig.until(first)) == 3
    await rig.idle()


@pytest.mark.parametrize("number", [0, -1, 2**53, 2**63, 2**70])
async def test_a_number_nothing_has_is_not_found(hello: Rig, number: int) -> None:
    """Numbers are typed by people and sent by other languages; none of them is worth more than an error."""
    for ask in (hello.engine.task, hello.engine.cancel_task, hello.engine.progress, hello.engine.cancel_job):
        with pytest.raises(NotFound):
            await hello.until(ask(number))
    with pytest.raises(ShoestringError):
        await hello.until(hello.engine.append_items(number, 0, raw([])))
