"""What every test may rely on: no settings of the machine it runs on, and the same examples at every run."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# Seeded by the test's own code, so that a red run is red again; no deadline, because a busy machine is not a bug. New
# examples are what the campaign looks for: `pytest --hypothesis-profile=campaign`.
settings.register_profile("fixed", derandomize=True, deadline=None, database=None)
settings.register_profile(
    "campaign", deadline=None, max_examples=5_000, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("fixed")

_SURROUNDINGS = ("RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "JOURNAL_STREAM")


@pytest.fixture(autouse=True)
def no_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings a developer or a service manager may have in the environment."""
    for name in list(os.environ):
        if name.startswith("SHOESTRING_") or name in _SURROUNDINGS:
            monkeypatch.delenv(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if os.geteuid() != 0:
        for item in items:
            if item.get_closest_marker("root"):
                item.add_marker(pytest.mark.skip(reason="needs root"))
