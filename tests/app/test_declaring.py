"""From a function to a handler or source, and back to the function."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shoestring import (
    ArgumentError,
    BatchHandler,
    Delivery,
    Durability,
    Handler,
    Page,
    RetryPolicy,
    Shoestring,
    Timeout,
    UsageError,
)


def test_a_bare_declaration_has_the_defaults() -> None:
    """Retries with a limit, jitter and a time limit without asking for them."""
    app = Shoestring()

    @app.task
    async def work(n: int) -> None:
        """Do it."""

    spec = work.spec
    assert app.registry.handlers == {spec.name: spec}
    assert spec.name == f"{__name__}.test_a_bare_declaration_has_the_defaults.<locals>.work"
    assert (spec.queue, spec.retry, spec.timeout, spec.concurrency) == ("default", RetryPolicy(), Timeout(), None)
    assert (spec.durability, spec.delivery) == (Durability.RELAXED, Delivery.AT_LEAST_ONCE)
    assert (spec.is_async, spec.batch) == (True, False)


def test_a_declaration_keeps_what_it_is_told() -> None:
    """Options stand in the decorator, none of them among the handler's own arguments."""
    app = Shoestring()
    retry = RetryPolicy(max_attempts=2)

    @app.task(
        name="all", queue="mail", retry=retry, timeout=Timeout(soft=1, hard=2), durability="durable",
        delivery="at_most_once", concurrency=3, batch=True,
    )  # fmt: skip
    def work(items: list[int]) -> None:
        """Do them."""

    spec = work.spec
    assert isinstance(work, BatchHandler)
    assert (spec.name, spec.queue, spec.retry, spec.timeout, spec.concurrency) == (
        "all",
        "mail",
        retry,
        Timeout(1, 2),
        3,
    )
    assert (spec.durability, spec.delivery) == (Durability.DURABLE, Delivery.AT_MOST_ONCE)
    assert (spec.is_async, spec.batch) == (False, True)


async def test_a_handler_is_still_its_function() -> None:
    """A unit test calls it; help() and inspect see through it."""
    app = Shoestring()

    @app.task
    async def add(a: int, b: int = 2) -> int:
        """Add."""
        return a + b

    @app.source
    async def numbers(cursor: str | None, *, up_to: int) -> Page[int]:
        return Page(range(up_to), next=cursor)

    assert await add(1) == 3
    assert await add.using(user="a")(1, b=1) == 2
    assert (add.__name__, add.__doc__) == ("add", "Add.")
    assert str(inspect.signature(add)) == "(a: 'int', b: 'int' = 2) -> 'int'"
    assert await numbers(None, up_to=3) == Page(range(3))


def test_a_call_is_checked_where_it_is_made() -> None:
    """Not in a worker, an hour later, in somebody else's log."""
    app = Shoestring()

    @app.task(name="mail")
    def send_mail(to: str, count: int = 1) -> None:
        """Send."""

    assert bytes(send_mail.call("a@b.example", count=2).body) == b'{"to":"a@b.example","count":2}'
    wrong: Handler[..., Any] = send_mail
    with pytest.raises(ArgumentError, match=r"send_mail: argument \$\.to: expected str, got int"):
        wrong.call(5)
    with pytest.raises(ArgumentError, match="count"):
        wrong.call("a@b.example", cuont=2)


def test_a_name_that_is_taken_is_refused() -> None:
    """Which of the two would run a stored task?"""
    app = Shoestring()
    app.task(name="work")(lambda: None)

    with pytest.raises(UsageError, match="two handlers are named 'work'"):
        app.task(name="work")(lambda: None)


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        ("@app.source\ndef pages(cursor): ...", "is no coroutine function; a source is `async def`"),
        ("@app.source\nasync def pages(): ...", "pages is called with the cursor first"),
        ("@app.task\nasync def work():\n    yield 1", "yields: a handler runs once and ends"),
        ("@app.task(batch=True)\ndef work(item: int): ...", "it is given a list of items"),
        ("@app.task\ndef work(thing: Path): ...", "parameter thing cannot be sent as JSON"),
        ("app.task('mail')", "which is no function; options are given by name"),
    ],
)
def test_a_function_that_cannot_be_one_is_refused_with_the_reason(declare: str, told: str) -> None:
    """When its module is imported."""
    names = {"app": Shoestring(), "Path": type("Path", (), {})}

    with pytest.raises(UsageError, match=told):
        exec(declare, names)


def test_a_module_that_is_run_names_its_handlers_as_the_daemon_imports_them(tmp_path: Path) -> None:
    """`python jobs.py` enqueues for the daemon whose app is `jobs:app`; `__main__.work` would wait for ever."""
    program = "from shoestring import Shoestring\napp = Shoestring()\n@app.task\ndef work(): ...\nprint(work.spec.name)"
    (tmp_path / "jobs.py").write_text(program)

    as_file = subprocess.run([sys.executable, "jobs.py"], capture_output=True, text=True, check=True, cwd=tmp_path)
    as_module = subprocess.run([sys.executable, "-m", "jobs"], capture_output=True, text=True, check=True, cwd=tmp_path)

    assert as_file.stdout == as_module.stdout == "jobs.work\n"
