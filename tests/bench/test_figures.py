"""From runs to figures, ratios and verdicts."""

from __future__ import annotations

import json

from shoestring.bench import limits
from shoestring.bench.budget import PROMISES, Promise, verdicts
from shoestring.bench.device import Counters
from shoestring.bench.outcome import Outcome, Spread, rate, writes_per_1000
from shoestring.bench.record import Disk, Run
from shoestring.bench.scenarios import SCENARIOS
from shoestring.bench.setting import Scenario
from shoestring.bench.table import as_json, as_text, draw, number, span

LIMIT = Scenario(name="limit", title="the limit", run=limits.bare_loop, tasks=1)
DRAIN = Scenario(name="drain", title="drain", run=limits.bare_loop, tasks=1, limit="limit")


def run(per_second: float, *, data_writes: int = 0, figures: dict[str, float] | None = None) -> Run:
    settled = Counters(writes=data_writes + 5, flushes=5, sectors=8)
    return Run(
        tasks=1000, seconds=1000 / per_second, cpu_s=0.002, disk=Disk(during=settled, settled=settled),
        figures=figures or {},
    )  # fmt: skip


def test_a_figure_is_the_median_with_least_and_greatest() -> None:
    """One round disturbed by something else on the machine must not move the figure."""
    outcome = Outcome(DRAIN, [run(100), run(10), run(110)])

    spread = outcome.spread(rate)

    assert spread is not None
    assert [round(value) for value in (spread.median, spread.least, spread.greatest)] == [100, 10, 110]


def test_a_ratio_is_taken_within_a_round() -> None:
    """Half the speed in a slow round and in a fast one is half the speed, whatever the medians say."""
    ours, limit = Outcome(DRAIN, [run(50), run(500)]), Outcome(LIMIT, [run(100), run(1000)])

    ratio = ours.ratio(limit)

    assert ratio is not None
    assert [round(value, 6) for value in (ratio.least, ratio.greatest)] == [0.5, 0.5]


def test_a_failed_run_leaves_the_others_in_their_rounds() -> None:
    """The second run of a scenario is compared with the second of its limit though the first failed."""
    ours, limit = Outcome(DRAIN, [None, run(500)]), Outcome(LIMIT, [run(100), run(1000)])

    ratio = ours.ratio(limit)

    assert ratio is not None
    assert round(ratio.median, 6) == 0.5


def test_writes_are_those_with_data_per_1000_units() -> None:
    """The five flushes are no data writes."""
    assert writes_per_1000(run(100, data_writes=3)) == 3


def test_a_promise_is_judged_by_its_median() -> None:
    """At least and at most are inclusive, and what was not measured is neither kept nor broken."""
    at_least = Promise("drain", "fast", rate, at_least=100)
    at_most = Promise("drain", "few writes", writes_per_1000, at_most=1)

    assert at_least.kept(Spread(100, 0, 200))
    assert not at_least.kept(Spread(99, 0, 200))
    assert at_most.kept(Spread(1, 0, 20))
    assert not at_most.kept(Spread(1.5, 0, 20))


def test_every_promise_names_a_scenario_that_exists() -> None:
    """A promise of a renamed scenario would never be looked at again."""
    assert {promise.scenario for promise in PROMISES} <= SCENARIOS.keys()


def test_every_limit_named_is_a_scenario() -> None:
    """A ratio needs its other half in the same run."""
    assert {scenario.limit for scenario in SCENARIOS.values() if scenario.limit} <= SCENARIOS.keys()


def test_only_the_promises_of_what_was_run_are_judged() -> None:
    """A run of one scenario says nothing about the others."""
    found = verdicts({"drain": Outcome(DRAIN, [run(70_000)])})

    assert {"drain"} == {verdict.promise.scenario for verdict in found}
    assert found[0].word == "reached"


def test_the_tables_show_every_scenario_and_its_verdict() -> None:
    """Plain text that pastes into an issue: the scenario, its ratio, its promise."""
    text = as_text([Outcome(LIMIT, [run(140_000)]), Outcome(DRAIN, [run(70_000, data_writes=9)])], where="loop0")

    assert "50% of limit" in text
    assert "reached" in text
    assert "NOT reached" in text  # 9 writes per 1,000


def test_a_failed_scenario_is_shown_as_failed() -> None:
    """An empty line in a table must not read as a figure of nothing."""
    outcome = Outcome(DRAIN, [None], ["its process ended with 1"])

    assert "failed" in as_text([outcome], where="loop0")
    assert "not measured" in as_text([outcome], where="loop0")


def test_json_holds_runs_spreads_and_verdicts() -> None:
    """What a machine keeps can be computed again from the runs themselves."""
    found = json.loads(as_json([Outcome(LIMIT, [run(100)]), Outcome(DRAIN, [run(50)])], where="loop0"))

    assert found["scenarios"]["drain"]["of_limit"]["median"] == 0.5
    assert len(found["scenarios"]["drain"]["runs"]) == 1
    assert found["promises"][0]["reached"] is False


def test_numbers_are_short_and_never_rounded_to_nothing() -> None:
    """0.02 writes per 1,000 are not 0."""
    assert [number(value) for value in (0, 0.0201, 3.14, 1234.4)] == ["0", "0.02", "3.1", "1,234"]
    assert span(Spread(2, 1, 3), wide=True) == "2.0 (1.0-3.0)"


def test_columns_line_up() -> None:
    """Figures stand under their heading, to the right."""
    assert draw(["a", "b", "c"], [["x", "10", "y"]]) == "a   b  c\n-  --  -\nx  10  y"
