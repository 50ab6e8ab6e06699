"""Apps with a queue of their own in the test's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring import Shoestring
from tests.serving import serve as serve  # noqa: PLC0414 - a fixture
from tests.serving import small_config


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shoestring:
    """An app whose database and sockets are in the test's folder, which is the current one."""
    monkeypatch.chdir(tmp_path)
    return Shoestring(small_config(Path()))
