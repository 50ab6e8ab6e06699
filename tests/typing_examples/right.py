"""What must type-check: every way the public API is meant to be used. Checked by mypy and pyright, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import assert_type

from shoestring import (
    BatchHandler,
    Call,
    Config,
    Discard,
    Handler,
    ItemsFailed,
    Job,
    Page,
    Progress,
    RateLimited,
    Receipt,
    RetryLater,
    RetryPolicy,
    Shoestring,
    Snooze,
    Timeout,
)

app = Shoestring()
from_a_file = Shoestring(Path("shoestring.toml"))
from_a_config = Shoestring(Config(database=Path("/srv/app.db")), connect_timeout=5.0)


@app.task
async def bare(to: str, count: int = 1) -> None: ...


@app.task(
    name="mail",
    queue="mail",
    retry=RetryPolicy(max_attempts=10, base=2.0, cap=timedelta(days=1), on=(OSError,)),
    timeout=Timeout(soft=25, hard=30),
    durability="durable",
    delivery="at_most_once",
    concurrency=8,
)
async def send_mail(to: str, template: str, *, language: str = "en") -> int:
    return len(to + template + language)


@app.task
def in_a_thread(path: str) -> bytes:
    return Path(path).read_bytes()


@app.task(queue="block")
async def block(target: int, *, account: str) -> None:
    if target == 1:
        raise RateLimited(retry_after=60, scope="user")
    if target == 2:
        raise Discard(f"{account} is gone")
    if target == 3:
        raise RetryLater(timedelta(minutes=1))
    raise Snooze(5)


@app.task(batch=True)
async def block_all(targets: list[int], account: str) -> None:
    raise ItemsFailed({0: ValueError(account), len(targets) - 1: Discard("gone")})


@app.source
async def followers(cursor: str | None, *, account: str) -> Page[int]:
    return Page([1, 2, 3], next=None if cursor else account)


@app.source(timeout=Timeout(hard=60), retry=RetryPolicy(max_attempts=3))
async def names(cursor: str | None) -> Page[str]:
    return Page([cursor or ""])


async def enqueueing() -> None:
    assert_type(await bare.enqueue("a@b.example"), Receipt)
    assert_type(await bare.enqueue("a@b.example", count=2), Receipt)
    assert_type(await send_mail.enqueue("a@b.example", "welcome", language="de"), Receipt)
    assert_type(in_a_thread.enqueue_sync("/etc/hostname"), Receipt)
    later = send_mail.using(
        user="alice",
        queue="slow",
        run_after=timedelta(hours=1),
        priority=10,
        unique="welcome:a@b.example",
        expires=datetime(2030, 1, 1, tzinfo=UTC),
        durability="volatile",
    )
    assert_type(await later.enqueue("a@b.example", "welcome"), Receipt)
    assert_type(await later.using(priority=5).enqueue("a@b.example", template="welcome"), Receipt)
    assert_type(send_mail.call("a@b.example", "news"), Call)
    receipts = await app.enqueue_many(send_mail.call(to, "news") for to in ("a", "b"))
    assert_type(receipts, list[Receipt])
    assert_type(app.enqueue_many_sync([bare.call("a"), send_mail.call("a", "b")]), list[Receipt])


async def calling() -> None:
    """A handler is still its function."""
    assert_type(await send_mail("a@b.example", "welcome"), int)
    assert_type(in_a_thread("/etc/hostname"), bytes)
    assert_type(await followers(None, account="troll"), Page[int])


async def numbers() -> AsyncIterator[int]:
    yield 1


def lines() -> Iterator[str]:
    yield "a"


async def fanning_out() -> None:
    assert_type(await block.fan_out([1, 2, 3], args={"account": "troll"}), Job)
    await block.fan_out(range(1_000_000), chunk=100, args={"account": "troll"})
    await block.using(user="alice").fan_out(numbers(), args={"account": "troll"})
    job = await block.using(user="alice").fan_out(
        followers.of(account="troll"),
        chunk=50,
        every=timedelta(minutes=10),
        then=send_mail.using(user="alice").call("alice@b.example", "done"),
    )
    await block_all.fan_out(numbers(), args={"account": "troll"})
    await block_all.using(priority=1).fan_out(followers.of(account="troll"))
    await bare.fan_out(names.of())
    await bare.fan_out(lines())
    in_a_thread.fan_out_sync(["a", "b"])
    assert_type(await job.progress(), Progress)
    assert_type(await job.wait(timeout=60), Progress)
    assert_type(job.wait_sync(timedelta(minutes=1)), Progress)
    assert_type(await job.cancel(), Progress)
    async for progress in job.watch():
        assert_type(progress, Progress)
    assert_type(app.job(7), Job)


async def embedding() -> None:
    async with app.running() as service:
        await bare.enqueue("a")
        await service.wait_idle()


def takes_any_mailer(handler: Handler[[str, str], object]) -> None:
    handler.enqueue_sync("a@b.example", "welcome")


def keeps_its_kind() -> None:
    handler: Handler[[str], bytes] = in_a_thread
    handler = in_a_thread.using(user="a")
    batch: BatchHandler[[list[int], str], object] = block_all.using(user="a")
    assert_type(handler("/etc/hostname"), bytes)
    batch.using(user="b")
