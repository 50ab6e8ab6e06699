"""A queue in the test's folder, on each of the two event loops: the daemon runs on uvloop, producers on any."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import uvloop

from tests.serving import serve as serve  # noqa: PLC0414 - a fixture


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
