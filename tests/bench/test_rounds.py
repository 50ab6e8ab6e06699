"""The harness: child processes, their records, and what becomes of those that fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoestring.bench import BenchOptions, main
from shoestring.bench.device import under
from shoestring.bench.rounds import NotMeasured, choose, environment, measure
from shoestring.bench.scenarios import SCENARIOS
from shoestring.bench.setting import Scenario
from shoestring.core.errors import ConfigError, UsageError


def test_a_scenario_brings_its_limit_along() -> None:
    """A ratio across runs would compare two states of the machine."""
    for scenario in SCENARIOS.values():
        chosen = {each.name for each in choose([scenario.name])}

        assert {scenario.name, scenario.limit} - {None} <= chosen


def test_a_leading_part_of_a_name_chooses_all_that_begin_with_it() -> None:
    """`--only limit` is all limits."""
    assert {name for name in SCENARIOS if name.startswith("limit")} == {each.name for each in choose(["limit"])}


def test_an_unknown_name_is_refused_with_the_names_there_are() -> None:
    """A typo must not look like a run with nothing to report."""
    with pytest.raises(UsageError, match=r"'drian'.*limit-loop"):
        choose(["drian"])


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Measuring on another disk than the one named would be worse than not measuring."""
    with pytest.raises(ConfigError, match="is not a folder"):
        main(BenchOptions(only=("limit-loop",), quick=True, folder=tmp_path / "missing"))


def test_a_child_measures_itself_and_is_measured(tmp_path: Path) -> None:
    """Units, time, CPU and the kernel's own peak of its memory come back from a process of its own."""
    run = measure(SCENARIOS["limit-loop"], under(tmp_path), tasks=200, window_s=1)

    assert run.tasks == 200
    assert run.seconds > 0
    assert run.cpu_s > 0
    assert run.rss_peak_kib > 0


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    """The reason stands on its stderr; a bench that only says `failed` is of no use."""
    unknown = Scenario(name="gone", title="no such scenario", run=SCENARIOS["limit-loop"].run, tasks=1)

    with pytest.raises(NotMeasured, match=r"(?s)ended with 1.*KeyError: 'gone'"):
        measure(unknown, under(tmp_path), tasks=1, window_s=1)


def test_nothing_is_left_in_the_folder(tmp_path: Path) -> None:
    """Every run starts in an empty folder, and the bench leaves none."""
    measure(SCENARIOS["limit-rows"], under(tmp_path), tasks=200, window_s=1)

    assert list(tmp_path.iterdir()) == []


def test_settings_of_the_caller_do_not_reach_the_children(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SHOESTRING_… variable set for a production daemon would change what is measured."""
    monkeypatch.setenv("SHOESTRING_RUN__SLOTS", "1")

    assert "SHOESTRING_RUN__SLOTS" not in environment()


def test_scale_and_quick_shrink_a_scenario_but_never_to_nothing() -> None:
    """Too few tasks would measure the start of the process."""
    scenario = SCENARIOS["limit-loop"]

    assert scenario.size(scale=1.0, quick=True) == scenario.tasks // 10
    assert scenario.size(scale=0.000001, quick=True) == 200
