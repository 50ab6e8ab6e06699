"""The processes that the simulator's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

from tests.sim import seeds


@pytest.fixture(scope="session")
def workers() -> Iterator[ProcessPoolExecutor]:
    with seeds.workers() as pool:
        yield pool
