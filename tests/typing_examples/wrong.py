"""What must not type-check: each line with `type: ignore` is a mistake both mypy and pyright find.

Both are told to complain of an ignore that ignores nothing, so a mistake that passes is an error here. Never run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

from shoestring import Page, RateLimited, RetryPolicy, Shoestring, Timeout
from shoestring import NoSuchName as NoSuchName  # type: ignore[attr-defined]

app = Shoestring()


@app.task(queue="mail")
async def send_mail(to: str, template: str, *, language: str = "en") -> None: ...


@app.task
async def block(target: int, *, account: str) -> None: ...


@app.task(batch=True)
async def block_all(targets: list[int], account: str) -> None: ...


@app.source
async def followers(cursor: str | None, *, account: str) -> Page[int]:
    return Page([1], next=cursor or account)


@app.source
async def names(cursor: str | None) -> Page[str]:
    return Page(["a"], next=cursor)


async def wrong_arguments() -> None:
    await send_mail.enqueue(5, "welcome")  # type: ignore[arg-type]
    await send_mail.enqueue("a@b.example")  # type: ignore[call-arg]
    await send_mail.enqueue("a@b.example", "welcome", "de")  # type: ignore[call-arg]
    await send_mail.enqueue("a@b.example", "welcome", langauge="de")  # type: ignore[call-arg]
    await send_mail.using(user="alice").enqueue(to="a@b.example", template=7)  # type: ignore[arg-type]
    send_mail.enqueue_sync("a@b.example", None)  # type: ignore[arg-type]
    send_mail.call("a@b.example", b"welcome")  # type: ignore[arg-type]
    await send_mail(5, "welcome")  # type: ignore[arg-type]


async def wrong_options() -> None:
    send_mail.using(user=7)  # type: ignore[arg-type]
    send_mail.using(run_after=60)  # type: ignore[arg-type]
    send_mail.using(priority="high")  # type: ignore[arg-type]
    send_mail.using(durability="fast")  # type: ignore[arg-type]
    send_mail.using(retries=3)  # type: ignore[call-arg]
    await send_mail.enqueue("a@b.example", "welcome", user="alice")  # type: ignore[call-arg]


def wrong_declarations() -> None:
    app.task(queue=5)  # type: ignore[call-overload]
    app.task(durability="fast")  # type: ignore[call-overload]
    app.task(isolated=True)  # type: ignore[call-overload]
    app.task("mail")  # type: ignore[call-overload]
    RetryPolicy(5)  # type: ignore[call-arg]
    Timeout(soft="1m")  # type: ignore[arg-type]
    RateLimited(60, scope="world")  # type: ignore[arg-type]

    @app.source  # type: ignore[arg-type]
    async def no_page(cursor: str | None) -> list[int]:
        return [len(cursor or "")]

    @app.source  # type: ignore[arg-type]
    async def no_cursor() -> Page[int]:
        return Page([1])


async def words() -> AsyncIterator[str]:
    yield "a"


async def wrong_fan_outs() -> None:
    await block.fan_out(["a"])  # type: ignore[list-item]
    await block.fan_out(words())  # type: ignore[arg-type]
    await block.fan_out(names.of())  # type: ignore[arg-type]
    await block.fan_out(5)  # type: ignore[arg-type]
    await block_all.fan_out(["a"])  # type: ignore[list-item]
    await block_all.using(user="alice").fan_out(names.of())  # type: ignore[arg-type]
    await block.fan_out(followers.of())  # type: ignore[call-arg]
    await block.fan_out(followers.of(account=5))  # type: ignore[arg-type]
    await block.fan_out(followers.of(cursor=None, account="troll"))  # type: ignore[call-arg]
    await block.fan_out([1], chunk="50")  # type: ignore[arg-type]
    await block.fan_out([1], every=600)  # type: ignore[arg-type]
    await block.fan_out([1], then=send_mail)  # type: ignore[arg-type]
    await block.fan_out([1], args=["troll"])  # type: ignore[arg-type]
    await app.enqueue_many([send_mail])  # type: ignore[list-item]
    job = await block.fan_out([1])
    await job.wait(timeout="60")  # type: ignore[arg-type]
    await job.pause()  # type: ignore[attr-defined]
    block.fan_out_sync(words())  # type: ignore[arg-type]
    block.fan_out_sync([1], every=timedelta(1)).wait()  # type: ignore[unused-coroutine]
