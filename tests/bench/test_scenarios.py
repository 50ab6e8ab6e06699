"""Every scenario runs, small: figures are read elsewhere, here only that there are some."""

from __future__ import annotations

import math

import pytest

from shoestring.bench.device import under
from shoestring.bench.outcome import COMMON
from shoestring.bench.rounds import measure
from shoestring.bench.scenarios import SCENARIOS
from shoestring.bench.setting import Scenario


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS.values(), ids=lambda scenario: scenario.name)
def test_a_scenario_comes_to_figures(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A bench that fails on somebody's box tells nothing about it; one that divides by nothing tells worse."""
    tasks = 20 if scenario.timed else 2_000

    folder = tmp_path_factory.mktemp("b")  # a short name: a Unix socket's path has at most 107 bytes
    run = measure(scenario, under(folder), tasks=tasks, window_s=0.3, settle_s=0.05)

    figures = {**run.figures, **{key: figure(run) for key, _, figure in COMMON}}
    assert run.tasks > 0
    assert {name for name, value in figures.items() if value is not None and not math.isfinite(value)} == set()
