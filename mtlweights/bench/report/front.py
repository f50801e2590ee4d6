"""Where the arms lie between the tasks, and beside static weights over the whole simplex."""

from __future__ import annotations

from statistics import fmean

import numpy as np

from ..runspec import SINGLE
from ..statistics.pareto import dominating, hypervolume
from .comparison import Comparison
from .inference import Scores
from .table import Cell, Grid

Points = dict[str, list[tuple[float, ...]]]  #: arm -> per seed the change on each task


def changes(comparison: Comparison, scores: Scores) -> Points:
    """Of each arm among ``scores``, in per cent of single-task training; empty where that has no score."""
    tasks, found = comparison.tasks, {}
    base = {task: list(own.values()) for task, own in comparison.scores.get(SINGLE, {}).items()}
    if not all(base.get(task) and fmean(base[task]) for task in tasks):
        return {}
    mean = {task: fmean(base[task]) for task in tasks}
    for arm, by_task in scores.items():
        if arm == SINGLE or not all(task in by_task for task in tasks):
            continue
        seeds = sorted(set.intersection(*(set(by_task[task]) for task in tasks))) if tasks else []
        found[arm] = [
            tuple(100 * (by_task[task][seed] - mean[task]) / abs(mean[task]) for task in tasks)
            for seed in seeds
        ]
    return {arm: values for arm, values in found.items() if values}


def means(points: Points) -> dict[str, tuple[float, ...]]:
    """Of each arm over its seeds."""
    return {arm: tuple(map(fmean, zip(*values, strict=True))) for arm, values in points.items()}


def _on(scores: Scores, seeds: set[int]) -> Scores:
    """The scores on these seeds; of single-task training, which all is relative to, on every one."""
    return {
        arm: own if arm == SINGLE else {t: {s: v for s, v in o.items() if s in seeds} for t, o in own.items()}
        for arm, own in scores.items()
    }


def against_front(comparison: Comparison) -> Grid | None:
    """Each arm's mean against the means of static weights over the simplex; None where there are none.

    Beyond: the volume that the arm adds to what they dominate, in per cent of that; the reference point has
    the lowest mean of any arm or weights on each task.
    """
    static = means(changes(comparison, comparison.front))
    if not static:
        return None
    seeds = {seed for by_task in comparison.front.values() for own in by_task.values() for seed in own}
    arms = means(changes(comparison, _on(comparison.scores, seeds)))
    if not arms:
        return None
    points, names = np.array(list(static.values())), list(static)
    lowest = np.minimum(points.min(0), np.array(list(arms.values())).min(0))
    volume = hypervolume(points, lowest)
    caption = f"Against {len(names)} static weights over the simplex, by the means of {len(seeds)} seeds"
    grid = Grid(caption, [("", "no better than weights"), ("", "beyond the front, %")], [])
    for arm, mean in arms.items():
        better = dominating(np.array(mean), points)
        gain = hypervolume(np.vstack([points, mean]), lowest) - volume
        weights = "" if better is None else names[better].partition("=")[2].strip("[]").replace(",", " : ")
        grid.rows.append((arm, [Cell(weights), Cell(f"{100 * gain / volume:.2f}" if volume else "n/a")]))
    return grid
