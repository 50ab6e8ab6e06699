"""The figures as plain text, which pastes into an issue, and as JSON, which a machine keeps."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence

import msgspec

from shoestring.bench.budget import verdicts
from shoestring.bench.outcome import COMMON, UNITLESS, Outcome, Spread, named


def as_text(outcomes: Sequence[Outcome], *, where: str) -> str:
    """Draw three tables: every scenario, what only some have, and the promises."""
    known = {outcome.scenario.name: outcome for outcome in outcomes}
    rounds = max((len(outcome.runs) for outcome in outcomes), default=0)
    lines = [
        f"{machine()}",
        f"disk: {where}",
        f"median (least-greatest) of {rounds} rounds" if rounds > 1 else "one round",
    ]
    heads = ["scenario", "units", *(head for _, head, _ in COMMON), "of its limit"]
    rows = []
    for outcome in outcomes:
        ratio = outcome.ratio(known.get(outcome.scenario.limit or ""))
        of_limit = f"{ratio.median:.0%} of {outcome.scenario.limit}" if ratio else ""
        units = next((f"{run.tasks:,}" for run in outcome.runs if run is not None), "failed")
        figures = [
            "" if outcome.scenario.timed and key not in UNITLESS else span(outcome.spread(figure), wide=key == "rate")
            for key, _, figure in COMMON
        ]
        rows.append([outcome.scenario.name, units, *figures, of_limit])
    lines += ["", draw(heads, rows)]
    lines += [
        "",
        f"others: cores of {os.cpu_count()} that other processes kept busy meanwhile; at 0 the figures are the queue's",
    ]
    if own := [row for outcome in outcomes for row in _own_rows(outcome)]:
        lines += ["", draw(["scenario", "figure", "value"], own)]
    if found := verdicts(known):
        budget = [[v.promise.what, v.promise.bound, span(v.found, wide=True), v.word] for v in found]
        lines += ["", draw(["promise", "bound", "measured", ""], budget)]
    return "\n".join(lines)


def as_json(outcomes: Sequence[Outcome], *, where: str) -> str:
    """Return one object: where it ran, every run as recorded, the spreads, the promises."""
    known = {outcome.scenario.name: outcome for outcome in outcomes}
    scenarios: dict[str, object] = {}
    for outcome in outcomes:
        figures = {key: outcome.spread(figure) for key, _, figure in COMMON}
        figures |= {name: outcome.spread(named(name)) for name in _own_names(outcome)}
        scenarios[outcome.scenario.name] = {
            "title": outcome.scenario.title,
            "limit": outcome.scenario.limit,
            "of_limit": outcome.ratio(known.get(outcome.scenario.limit or "")),
            "figures": {name: spread for name, spread in figures.items() if spread is not None},
            "runs": outcome.runs,
            "failures": outcome.failures,
        }
    promises = [
        {
            "scenario": verdict.promise.scenario,
            "what": verdict.promise.what,
            "at_least": verdict.promise.at_least,
            "at_most": verdict.promise.at_most,
            "measured": verdict.found,
            "reached": None if verdict.found is None else verdict.promise.kept(verdict.found),
        }
        for verdict in verdicts(known)
    ]
    whole = {"machine": machine(), "disk": where, "scenarios": scenarios, "promises": promises}
    return json.dumps(msgspec.to_builtins(whole), indent=2)


def machine() -> str:
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, load {load:.1f} at the end, Linux {platform.release()},"
        f" Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}"
    )


def span(spread: Spread | None, *, wide: bool = False) -> str:
    """Write a spread with three significant figures; `wide` adds the least and the greatest if they differ."""
    if spread is None:
        return ""
    if not wide or spread.least == spread.greatest:
        return number(spread.median)
    return f"{number(spread.median)} ({number(spread.least)}-{number(spread.greatest)})"


def number(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2g}" if abs(value) < 1 else f"{value:.1f}"


def draw(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Align columns: the first to the left, figures to the right, the last as it comes."""
    table = [list(heads), *(list(row) for row in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if column in (0, len(heads) - 1) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _own_names(outcome: Outcome) -> list[str]:
    return list(dict.fromkeys(name for run in outcome.runs if run is not None for name in run.figures))


def _own_rows(outcome: Outcome) -> list[list[str]]:
    return [
        [outcome.scenario.name, name, span(outcome.spread(named(name)), wide=True)]
        for name in _own_names(outcome)
        if name != "switches"
    ]
