"""What one number hides: the trade between tasks, who beats whom, and what another unit of a loss does."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...problems import scales
from ..runspec import SINGLE
from .comparison import Comparison
from .drawing import ACCENT, GRID, MUTED, TEXT, clipped, drawing
from .front import Points, changes, means
from .inference import DELTA
from .table import Cell, Grid
from .verdict_figure import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trade_off(comparison: Comparison) -> str:
    """SVG: every arm's change on each task against single-task training, in per cent.

    Two tasks: a plane, each seed a small point, its arm's mean a large one; static weights, where several
    were run, are joined by a line. More: parallel coordinates, a line per arm. Empty without numbers.
    """
    points = changes(comparison, comparison.scores)
    if not points or len(comparison.tasks) < 2:
        return ""
    flat = len(comparison.tasks) == 2
    size, key = ((5.6, 4.0) if flat else (7.4, 3.4)), f"{comparison.problem} {_budget(comparison)} trade-off"
    with drawing(1, size, f"Trade between tasks on {comparison.problem}", key) as (figure, svg):
        axes = figure.get_axes()[0]
        (_plane if flat else _parallel)(axes, comparison, points)
    return svg[0]


def _colour(comparison: Comparison, arm: str) -> str:
    against = comparison.against
    verdict = comparison.verdict(arm, against, DELTA) if against else None
    return ACCENT if verdict is None else COLOURS[verdict.verdict]


def _plane(axes: Axes, comparison: Comparison, points: Points) -> None:
    axes.axhline(0, color=MUTED, linewidth=0.7)
    axes.axvline(0, color=MUTED, linewidth=0.7)
    centres = means(points)
    known = sorted(centres[arm] for arm in centres if arm.split(":")[0] in ("fixed", "equal"))
    static = list(means(changes(comparison, comparison.front)).values()) or known
    if len(static) > 2:
        axes.plot(*zip(*static, strict=True), "-s", color=GRID, linewidth=2.5, markersize=3, zorder=1)
    for arm, values in points.items():
        colour = _colour(comparison, arm)
        axes.plot(*zip(*values, strict=True), ".", color=colour, alpha=0.35, markersize=3)
        axes.plot(*centres[arm], "o", color=colour, markersize=5)
        place: Any = centres[arm]
        axes.annotate(clipped(arm), place, (4, 3), textcoords="offset points", fontsize=7, color=TEXT)
    first, second = map(clipped, comparison.tasks)
    axes.set_xlabel(f"{first}: change against single-task training, %")
    axes.set_ylabel(f"{second}, %")


def _parallel(axes: Axes, comparison: Comparison, points: Points) -> None:
    places = range(len(comparison.tasks))
    axes.axhline(0, color=MUTED, linewidth=0.7)
    for mean in means(changes(comparison, comparison.front)).values():
        axes.plot(places, mean, color=GRID, linewidth=1.6, zorder=1)
    for arm, mean in means(points).items():
        axes.plot(places, mean, "-o", color=_colour(comparison, arm), linewidth=1.2, markersize=3)
        axes.annotate(clipped(arm), (places[-1], mean[-1]), (5, -2), textcoords="offset points", fontsize=7)
    axes.xaxis.set_ticks(list(places), [clipped(task) for task in comparison.tasks], rotation=20, ha="right")
    axes.set_ylabel("change, %")


def pairwise(comparison: Comparison) -> Grid | None:
    """In how many of the seeds they share each arm has a higher mean change than each other one."""
    points = changes(comparison, comparison.scores)
    if len(points) < 2:
        return None
    totals = {arm: _by_seed(comparison, arm) for arm in points}
    order = sorted(totals, key=lambda arm: -fmean(totals[arm].values()))
    grid = Grid("Seeds won, row over column", [("", clipped(arm)) for arm in order], [])
    for arm in order:
        cells = []
        for other in order:
            shared = totals[arm].keys() & totals[other].keys()
            won = sum(totals[arm][seed] > totals[other][seed] for seed in shared)
            cells.append(Cell("" if arm == other or not shared else f"{won}/{len(shared)}"))
        grid.rows.append((arm, cells))
    return grid


def _by_seed(comparison: Comparison, arm: str) -> dict[int, float]:
    by_task = comparison.scores[arm]
    seeds = set.intersection(*(set(by_task[task]) for task in comparison.tasks))
    mean = {task: fmean(comparison.scores[SINGLE][task].values()) for task in comparison.tasks}
    return {
        seed: fmean((by_task[task][seed] - mean[task]) / abs(mean[task]) for task in comparison.tasks)
        for seed in seeds
    }


def stress(comparison: Comparison, among: Sequence[Comparison]) -> Grid | None:
    """Where losses are multiplied: each arm's mean change there, and on the problem as it is."""
    base, factors = scales.split(comparison.problem)
    axis = comparison.settings.get("axis")
    plain = [other for other in among if other.problem == base and other.settings.get("axis") == axis]
    plain.sort(key=lambda other: _budget(other) != _budget(comparison))
    if not factors or not plain:
        return None
    there, here = ({row.arm: row.delta for row in c.rows} for c in (plain[0], comparison))
    heads = [("", "as it is"), ("", "multiplied"), ("", "moved by")]
    said = ", ".join(f"{task} by {factor:g}" for task, factor in factors.items())
    grid = Grid(f"{DELTA} % against single-task training with the loss of {said} multiplied", heads, [])
    for arm, moved in here.items():
        before = there.get(arm)
        if moved is not None and before is not None:
            cells = [Cell(f"{value:+.2f}") for value in (before.mean, moved.mean, moved.mean - before.mean)]
            grid.rows.append((arm, cells))
    return grid if grid.rows else None


def exposure(comparison: Comparison) -> Grid | None:
    """Optimizer steps and labels of each task that every arm was trained on, in all; the same for all arms.

    An arm whose steps differ from those of equal weights, or of an axis's first arm, is marked: it stopped
    early, or got less or more.
    """
    tasks, rows = comparison.tasks, {}
    for row in comparison.rows:
        own = [r for r in comparison.of(row.arm) if r["status"] == "ok" and r["history"]]
        if not own or any("seen" not in line for result in own for line in result["history"]):
            return None
        steps = fmean(result["steps"] for result in own)
        labels = {
            task: fmean(sum(line["seen"].get(task, 0) for line in result["history"]) for result in part)
            for task in tasks
            if (part := [result for result in own if task in result["tasks"]])
        }
        rows[row.arm] = steps, labels
    if not rows:
        return None
    usual = rows.get(comparison.base, next(iter(rows.values())))[0]
    heads = [("", "optimizer steps"), *((task, "labels seen") for task in tasks)]
    grid = Grid("What every arm was trained on, mean over seeds", heads, [])
    for arm, (steps, labels) in rows.items():
        other = "" if math.isclose(steps, usual) else "worse"
        cells = [Cell(f"{labels[task]:,.0f}" if task in labels else "n/a") for task in tasks]
        grid.rows.append((arm, [Cell(f"{steps:,.0f}", other), *cells]))
    return grid


def _budget(comparison: Comparison) -> str:
    return str(comparison.settings.get("budget", ""))
