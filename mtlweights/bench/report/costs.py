"""What a gain costs: time of a step beside the first arm's, and what is left of the gain in its time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from ..costs import Costs
from ..runspec import SINGLE
from .comparison import Comparison, Result
from .drawing import GRID, MUTED, TEXT, clipped, drawing
from .inference import DELTA, called
from .table import Cell, Grid
from .verdict_figure import COLOURS


def costs_of(comparison: Comparison, costs: Costs) -> dict[str, dict[str, float]]:
    """Arm -> ratios to a step of equal weights (an axis's first arm), of the arms that were measured."""
    ids = {c.arm: c.trials[c.chosen]["id"] for c in comparison.choices if c.only is None}
    found = {row.arm: costs[ids[row.arm]] for row in comparison.rows if ids.get(row.arm) in costs}
    return found | {comparison.base: {"time": 1.0, "memory": 1.0}} if found else {}


def cost_grid(comparison: Comparison, costs: Mapping[str, Mapping[str, float]]) -> Grid | None:
    """Time and memory of a step, and Δm on validation data with all epochs and in the time of equal weights.

    In that time an arm whose step takes r times as long has its first E / r of E epochs, to the nearest whole
    one; the best of these counts. One that is faster has no more than the E it was run for.
    """
    if not costs:
        return None
    memory = all(cost["memory"] for cost in costs.values())
    heads = [("", "step time"), *([("", "peak memory")] if memory else [])]
    base = comparison.base
    heads += [(f"{DELTA} % on validation", "all epochs"), (f"{DELTA} % on validation", f"in {base}'s time")]
    grid = Grid(f"Cost, as multiples of {called(base)}", heads, [])
    for arm, cost in sorted(costs.items(), key=lambda item: item[1]["time"]):
        cells = [Cell(f"{cost['time']:.2f}"), *([Cell(f"{cost['memory']:.2f}")] if memory else [])]
        cells += [Cell(_percent(_delta(comparison, arm, slower))) for slower in (1.0, max(1.0, cost["time"]))]
        grid.rows.append((arm, cells))
    return grid


def _percent(value: float | None) -> str:
    return "n/a" if value is None else f"{value:+.2f}"


def _delta(comparison: Comparison, arm: str, slower: float) -> float | None:
    """Mean over seeds and tasks of the change against single-task training, in per cent."""
    found = []
    for column in comparison.columns:
        if not column.primary:
            continue
        sign = 1 if column.higher_is_better else -1
        alone = [_score(r, column.task, column.metric, 1.0) for r in comparison.of(SINGLE)]
        own = [_score(r, column.task, column.metric, slower) for r in comparison.of(arm)]
        base, scores = ([v for v in values if v is not None] for values in (alone, own))
        if not base or not scores or not fmean(base):
            return None
        found.append(100 * sign * (fmean(scores) - fmean(base)) / abs(fmean(base)))
    return fmean(found) if found else None


def _score(result: Result, task: str, metric: str, slower: float) -> float | None:
    """On validation data, at the best epoch of those there is time for."""
    if result["status"] != "ok" or task not in result["tasks"]:
        return None
    rows: Sequence[Result] = result["history"]
    epochs = result["settings"].get("epochs", len(rows))
    rows = [row for row in rows[: round(epochs / slower)] if row.get("score") is not None]
    best = max(rows, key=lambda row: row["score"], default=None)
    return None if best is None else best["dev"].get(task, {}).get(metric)


def cost_figure(comparison: Comparison, costs: Mapping[str, Mapping[str, float]]) -> str:
    """SVG: Δm against equal weights (an axis's first arm) over the time of a step; empty where nothing was
    measured or judged."""
    base = comparison.base
    verdicts = {arm: comparison.verdict(arm, base, DELTA) for arm in costs}
    found = {arm: v for arm, v in verdicts.items() if v is not None and math.isfinite(v.interval.half)}
    if not found:
        return ""
    key = f"{comparison.problem} {comparison.settings.get('budget', '')} cost"
    with drawing(1, (5.6, 3.6), f"{DELTA} over the time of a step on {comparison.problem}", key) as page:
        figure, svg = page
        axes = figure.get_axes()[0]
        axes.axhspan(-comparison.worth, comparison.worth, color=GRID, alpha=0.35, linewidth=0)
        axes.plot([1.0], [0.0], "D", color=MUTED, markersize=4.5)
        axes.annotate(clipped(base), (1.0, 0.0), (5, -8), textcoords="offset points", fontsize=7, color=TEXT)
        for arm, verdict in found.items():
            own, time, colour = verdict.interval, costs[arm]["time"], COLOURS[verdict.verdict]
            axes.plot([time, time], [own.low, own.high], color=colour, linewidth=1.2)
            axes.plot([time], [own.mean], "o", color=colour, markersize=4.5)
            axes.annotate(clipped(arm), (time, own.mean), (4, 3), textcoords="offset points", fontsize=7)
        axes.set_xlabel(f"time of a step, multiples of {called(base)}")
        axes.set_ylabel(f"{DELTA} against {called(base)}")
    return svg[0]
