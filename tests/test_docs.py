"""What is written down is compared with what is there."""

from __future__ import annotations

import ast
import re
from enum import Enum
from pathlib import Path

import msgspec
import pytest
import tomli

from shoestring.api.parameters import Enqueue
from shoestring.cli.group import COMMANDS
from shoestring.config import Config, KeyPath
from shoestring.configfile import keys
from shoestring.core.model import Limit, QueueConfig
from shoestring.core.wire import parse_request

ROOT = Path(__file__).parent.parent
EXAMPLE = (ROOT / "config.example.toml").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")

#: The defaults, and a value of the example's own where the default is "none".
SHOWN = Config(app="myproject.jobs:app", runtime_dir=Path("/run/shoestring"))
SHOWN_QUEUE = QueueConfig(concurrency=8, limit=Limit(capacity=100, rate=0.5))


def uncommented(text: str) -> str:
    """Return the example with the keys and sections that stand in comments made real."""
    lines = []
    for line in text.splitlines():
        bare = line.removeprefix("# ")
        is_key = bare.split(" = ")[0].isidentifier() and " = " in bare
        is_section = bare.startswith("[") and bare.endswith("]")
        lines.append(bare if is_key or is_section else line)
    return "\n".join(lines)


def shown(tree: dict[str, object], path: KeyPath = ()) -> dict[KeyPath, object]:
    found: dict[KeyPath, object] = {}
    for name, value in tree.items():
        key = (*path, "*" if path == ("queues",) else name)
        found.update(shown(value, key) if isinstance(value, dict) else {key: value})
    return found


def in_code(key: KeyPath) -> object:
    here: object = SHOWN_QUEUE if key[0] == "queues" else SHOWN
    for part in key[2:] if key[0] == "queues" else key:
        here = getattr(here, part)
    return here.value if isinstance(here, Enum) else str(here) if isinstance(here, Path) else here


def test_the_example_shows_every_key_with_its_true_default() -> None:
    """People read the example instead of the code; what it says must be what happens."""
    example = shown(tomli.loads(uncommented(EXAMPLE)))

    assert {key: in_code(key) for key in keys()} == example


@pytest.mark.parametrize("text", [EXAMPLE, uncommented(EXAMPLE)], ids=["as it is", "all keys set"])
def test_the_example_is_a_config_that_loads(text: str, tmp_path: Path) -> None:
    """The first thing a user does is copy it."""
    file = tmp_path / "shoestring.toml"
    file.write_text(text)

    config = Config.load(file, environ={})

    assert (config.run, config.store, config.limits, config.log) == (
        Config().run,
        Config().store,
        Config().limits,
        Config().log,
    )


def test_the_example_says_of_every_key_why() -> None:
    """A default without its reason is a number nobody dares to change."""
    lines = EXAMPLE.splitlines()
    bare = [line.removeprefix("# ") for line in lines]
    key_lines = [n for n, line in enumerate(bare) if " = " in line and line.split(" = ")[0].isidentifier()]

    without = [lines[n] for n in key_lines if not lines[n - 1].startswith("# ") or n - 1 in key_lines]

    # The three numbers of a limit are explained together, above its section.
    assert [line.removeprefix("# ").split(" = ")[0] for line in without] == ["rate", "charge"]


def test_continuous_integration_runs_the_test_command_of_the_readme() -> None:
    """A test command nobody runs is out of date by the next release."""
    readme = (ROOT / "README.md").read_text("utf-8").splitlines()
    run = (ROOT / ".ci" / "run").read_text("utf-8")

    assert [line for line in readme if line.startswith("sh .ci/setup dev && ")] == [
        "sh .ci/setup dev && .venv/bin/pytest"
    ]
    assert r"grep -E '^sh \.ci/setup dev && ' README.md" in run


def test_the_first_command_of_the_readme_sets_up_and_runs_the_demo() -> None:
    """It is the first thing anybody does, and the one thing some ever do."""
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()

    assert next(line for line in lines if line.startswith("sh ")) == "sh .ci/setup && .venv/bin/shoestring demo"


def test_the_readme_names_every_command() -> None:
    """What is not in the README is found by chance; what is only there does not exist."""
    named = set(re.findall(r"`shoestring ([a-z]+)", README))

    assert named == set(COMMANDS)


def test_the_python_of_the_readme_is_python() -> None:
    """It is copied."""
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)

    assert len(blocks) >= 2
    for block in blocks:
        compile(block, "README.md", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_message_the_readme_shows_is_one_the_daemon_takes() -> None:
    """Programs in other languages are written from this one line."""
    message = next(line for line in README.splitlines() if line.startswith("echo '{"))
    request = parse_request(message.removeprefix("echo '").split("' |")[0].encode())

    assert request.method == "enqueue"
    assert len(msgspec.json.decode(request.params, type=Enqueue).tasks) == 1
