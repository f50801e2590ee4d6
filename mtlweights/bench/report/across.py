"""Across problems: how an arm does on the middle half of all runs, and its mean rank."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import Any

import numpy as np

from ...problems import scales
from ..runspec import SINGLE
from ..statistics import critical_difference, interquartile_mean, ranks
from .comparison import Comparison
from .drawing import ACCENT, MUTED, TEXT, clipped, drawing
from .inference import DELTA, mean_over_tasks, relative
from .table import Cell, Grid

Table = dict[str, dict[str, list[float]]]  #: arm -> problem -> Δm of each seed


def across_problems(comparisons: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A section of the page for every budget and axis along which two or more problems were run; stress left
    out."""
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        if not scales.split(comparison.problem)[1]:
            budget, axis = (str(comparison.settings.get(key, "")) for key in ("budget", "axis"))
            groups.setdefault(budget + f", axis={axis}" * bool(axis), []).append(comparison)
    sections: list[dict[str, Any]] = []
    for budget, group in groups.items():
        base = group[0].base
        alone, equal = (_table(group, against) for against in (SINGLE, base))
        if len({c.problem for c in group}) == len(group) > 1 and alone:
            title = "Across problems" + f" (budget={budget})" * (len(groups) > 1)
            mean_ranks = _ranks(alone)
            sections.append(
                {
                    "id": f"across-{len(sections) + 1}",
                    "title": title,
                    "summary": _summary(len(group), len(alone)),
                    "figure": _rank_figure(mean_ranks, len(group), title, base),
                    "grids": [_grid(alone, equal, mean_ranks, base)],
                }
            )
    return sections


def _table(group: Sequence[Comparison], against: str) -> Table:
    """Of the arms that were run on every problem; ``against`` itself is not among them."""
    found: Table = {}
    for comparison in group:
        for arm in comparison.scores:
            if arm == against:
                continue
            tasks = [relative(comparison.scores, arm, against, task) for task in comparison.tasks]
            if values := list(mean_over_tasks(tasks).values()):
                found.setdefault(arm, {})[comparison.problem] = values
    return {arm: scores for arm, scores in found.items() if len(scores) == len(group)}


def _ranks(table: Table) -> dict[str, float]:
    means = np.array([[fmean(values) for values in scores.values()] for scores in table.values()])
    return dict(zip(table, map(float, ranks(means.T)), strict=True))


def _summary(problems: int, arms: int) -> str:
    far = critical_difference(problems, arms)
    what = (
        "too few for a test of ranks, which takes 15"
        if far is None
        else f"mean ranks that differ by less than {far:.2f} cannot be told apart (Nemenyi)"
    )
    return f"{arms} arms on {problems} problems: {what}. No verdict: a problem is no sample of problems."


def _grid(alone: Table, equal: Table, mean_ranks: dict[str, float], base: str) -> Grid:
    heads = [(f"{DELTA} %, interquartile mean", f"against {what}") for what in (SINGLE, base)]
    grid = Grid("The middle half of all runs of all problems", [*heads, ("", "mean rank")], [])
    for arm in sorted(alone, key=lambda arm: mean_ranks[arm]):
        cells = [_cell(alone[arm]), _cell(equal[arm]) if arm in equal else Cell("")]
        grid.rows.append((arm, [*cells, Cell(f"{mean_ranks[arm]:.2f}")]))
    return grid


def _cell(scores: dict[str, list[float]]) -> Cell:
    mean, low, high = interquartile_mean(scores)
    return Cell(f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]")


def _rank_figure(mean_ranks: dict[str, float], problems: int, title: str, base: str) -> str:
    """SVG: mean ranks, each with a bar as long as the critical difference; empty with too few problems."""
    far = critical_difference(problems, len(mean_ranks))
    if far is None:
        return ""
    order = sorted(mean_ranks, key=lambda arm: -mean_ranks[arm])
    with drawing(1, (7.4, 0.7 + 0.22 * len(order)), f"{title}: mean ranks", title) as (figure, svg):
        axes = figure.get_axes()[0]
        for place, arm in enumerate(order):
            rank = mean_ranks[arm]
            axes.plot([rank - far / 2, rank + far / 2], [place, place], color=MUTED, linewidth=1.6)
            axes.plot([rank], [place], "o", color=TEXT if arm == base else ACCENT, markersize=4.5)
        axes.yaxis.set_ticks(range(len(order)), [clipped(arm) for arm in order])
        axes.set_xlabel("mean rank, 1 is best; bars that overlap: not told apart (Nemenyi)")
        axes.grid(axis="y", visible=False)
    return svg[0]
