"""The public API's types, held by two type checkers over examples that are right and examples that are wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import shoestring

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "tests" / "typing_examples"


def check(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.slow
def test_mypy_finds_every_wrong_example_and_no_other() -> None:
    """A wrong argument to `enqueue` is found before the program runs; an ignore that ignores nothing is an error."""
    checked = check("mypy", "--config-file", ROOT / "pyproject.toml", EXAMPLES)

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_pyright_finds_every_wrong_example_and_no_other() -> None:
    """Half of the users see the types through pyright, in their editor, and it infers differently."""
    if check("pyright", "--version").returncode != 0:
        pytest.skip("pyright loads its own program when it is first run, and could not")

    checked = check("pyright", "-p", EXAMPLES, "--pythonpath", sys.executable)

    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_public_name_is_where_the_package_says() -> None:
    """Names are loaded late, so a wrong home would be found by the first user of the name."""
    found = {name: getattr(shoestring, name) for name in shoestring.__all__}

    assert sorted(found) == shoestring.__all__ == sorted(set(shoestring._HOME_OF))


def test_an_unknown_name_is_an_attribute_error() -> None:
    """`from shoestring import Typo` says so, as with any module."""
    with pytest.raises(AttributeError, match="no attribute 'Typo'"):
        _ = shoestring.Typo  # type: ignore[attr-defined]


def test_importing_the_package_loads_none_of_it() -> None:
    """The command line imports it, and shall start within 150 ms."""
    program = "import sys, shoestring; print(*(name for name in sys.modules if name.startswith('shoestring.')))"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert loaded.stdout.split() == []


def test_declaring_handlers_loads_no_store_and_no_server() -> None:
    """A web app that only enqueues does not carry the daemon's modules in each of its workers."""
    program = (
        "import sys; from shoestring import Shoestring\n"
        "app = Shoestring()\n"
        "@app.task\n"
        "async def work(n: int) -> None: ...\n"
        "print(*sys.modules)"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    heavy = {"aiosqlite", "sqlite3", "structlog", "rich", "click", "uvloop", "tomli", "shoestring.service"}
    assert heavy & set(loaded.stdout.split()) == set()
