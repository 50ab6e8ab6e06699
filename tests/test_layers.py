"""The import direction is a fact about the code, so the code is asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

ROOT = Path(__file__).parent.parent


def test_imports_go_one_way_and_the_core_stays_pure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that reaches up can no longer be tested, simulated or replaced alone."""
    monkeypatch.syspath_prepend(str(ROOT))

    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)

    assert code == 0, capsys.readouterr().out


def test_reading_the_configuration_loads_no_event_loop_and_no_log() -> None:
    """Every command of the command line starts with it, and may take 150 ms in all."""
    program = "import sys, shoestring.config, shoestring.configfile; print(*sys.modules)"

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    heavy = {"asyncio", "structlog", "rich", "sqlite3", "click", "uvloop", "tomli", "difflib"}
    assert heavy & set(loaded.stdout.split()) == set()


def test_the_log_leaves_rich_alone() -> None:
    """structlog would import rich and Pygments, a quarter of the memory an idle daemon may have."""
    program = (
        "import sys; from shoestring import config, log; log.configure(config.LogConfig()); "
        "loaded = set(sys.modules); import rich; print(*loaded)"
    )

    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)

    assert {"rich", "pygments"} & set(loaded.stdout.split()) == set()
