"""From a name in the configuration to the app, or to the sentence that says what is wrong."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shoestring.app import Shoestring
from shoestring.config import Config
from shoestring.core.errors import ConfigError
from shoestring.loading import load_app

Module = Callable[[str], str]
_numbers = itertools.count()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Module]:
    """Write a module of this text into the current folder and return its name."""
    path, loaded = list(sys.path), set(sys.modules)
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        name = f"loading_jobs_{next(_numbers)}"
        (tmp_path / f"{name}.py").write_text(text)
        return name

    yield write
    sys.path[:] = path
    for name in set(sys.modules) - loaded:
        del sys.modules[name]


def refusal(app: str | None) -> str:
    with pytest.raises(ConfigError) as caught:
        load_app(Config(app=app))
    return str(caught.value)


def test_the_app_is_found_in_the_current_folder(module: Module) -> None:
    """People keep their jobs beside the configuration, not in an installed package."""
    name = module("from shoestring import Shoestring\nclass Here:\n    queue = Shoestring()\n")

    assert isinstance(load_app(Config(app=f"{name}:Here.queue")), Shoestring)


def test_no_app_at_all_is_said_with_the_line_to_write() -> None:
    """The first start of a new user ends here."""
    assert 'Set app = "module:attribute" in shoestring.toml' in refusal(None)


def test_a_missing_module_is_named_with_where_it_was_looked_for(module: Module, tmp_path: Path) -> None:
    """The daemon may have been started in another folder than people think."""
    module("")

    assert refusal("nosuch.jobs:app") == (
        f"app = 'nosuch.jobs:app' (default): there is no module 'nosuch'. It was looked for in {tmp_path} and where"
        " Python's packages are. Start in the folder that holds it, or install it into this environment."
    )


def test_a_module_that_fails_is_blamed_at_its_own_line(module: Module, tmp_path: Path) -> None:
    """The mistake is in the user's file, so that is the line to show."""
    name = module("x = 1\ny = x / 0\n")

    assert f"importing it failed: ZeroDivisionError: division by zero ({tmp_path}/{name}.py, line 2)" in refusal(
        f"{name}:app"
    )


def test_a_module_that_imports_what_is_missing_is_not_called_missing(module: Module) -> None:
    """Else people look for their own file, which is there."""
    name = module("import nosuch_dependency\n")

    assert "importing it failed: ModuleNotFoundError: No module named 'nosuch_dependency'" in refusal(f"{name}:app")


def test_a_module_that_ends_the_program_does_not_end_the_daemon_silently(module: Module) -> None:
    """A script without a main guard would look like a clean exit."""
    name = module("raise SystemExit(0)\n")

    assert "importing it failed: SystemExit: 0" in refusal(f"{name}:app")


def test_a_syntax_error_names_its_line(module: Module) -> None:
    """Python's own message says it best."""
    name = module("def broken(:\n")

    assert f"importing it failed: SyntaxError: invalid syntax ({name}.py, line 1)" in refusal(f"{name}:app")


def test_a_missing_attribute_suggests_the_app_that_is_there(module: Module) -> None:
    """Nearly always it only has another name."""
    name = module("from shoestring import Shoestring\nqueue = Shoestring()\n")

    assert refusal(f"{name}:app").endswith(f"{name} has no 'app'. Did you mean {name}:queue?")


def test_something_else_than_an_app_is_called_what_it_is(module: Module) -> None:
    """Web frameworks call theirs `app`, too."""
    name = module("app = 'flask'\n")

    assert "this is a str, not a Shoestring. Make one there: app = Shoestring()." in refusal(f"{name}:app")
