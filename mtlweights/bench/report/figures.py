"""Small multiples as inline SVG: one frame per arm, coloured by the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..runspec import SINGLE
from .comparison import Column, Comparison, Result
from .drawing import ACCENT, GRID, TASKS, TEXT, clipped, drawing
from .table import NAMES, PERCENT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEGEND: dict[str, Any] = {"frameon": False, "borderpad": 0.2}
WIDTH = 3.1  #: inches of a frame
Curve = tuple[list[int], list[float], list[float], list[float]]  #: epochs, mean, lowest, highest over seeds


def validation_curves(comparison: Comparison) -> dict[str, str]:
    """Arm -> SVG: each task's first metric on validation data by epoch, the other arms behind it in grey."""
    columns = [column for column in comparison.columns if column.primary]
    curves = {
        row.arm: {column: _dev_curve(comparison.of(row.arm), column) for column in columns}
        for row in comparison.rows
    }
    limits = {column: _limits([arm[column] for arm in curves.values()], column) for column in columns}
    found = {}
    for arm, own in curves.items():
        if arm == SINGLE or not any(own.values()):
            continue
        size = (WIDTH, 0.45 + 1.25 * len(columns))
        key = f"{comparison.problem} {arm} curves"
        with drawing(len(columns), size, f"Validation curves of {arm}", key) as page:
            figure, svg = page
            for axes, column in zip(figure.get_axes(), columns, strict=True):
                _draw_curve(axes, column, arm, curves, limits[column])
            figure.get_axes()[-1].set_xlabel("epoch")
        found[arm] = svg[0]
    return found


def weight_trajectories(comparison: Comparison) -> dict[str, str]:
    """Arm -> SVG: each task's mean weight by epoch; arms that report no weights are left out."""
    found = {}
    for row in comparison.rows:
        results = comparison.of(row.arm)
        curves = [(task, _weight_curve(results, task)) for task in comparison.tasks]
        if row.arm == SINGLE or not any(curve for _, curve in curves):
            continue
        key, more = f"{comparison.problem} {row.arm} weights", math.ceil(len(curves) / _columns(curves)) - 1
        with drawing(1, (WIDTH, 1.7 + 0.17 * more), f"Weights of {row.arm}", key) as page:
            figure, svg = page
            _draw_weights(figure.get_axes()[0], curves)
        found[row.arm] = svg[0]
    return found


def _draw_curve(
    axes: Axes,
    column: Column,
    arm: str,
    curves: dict[str, dict[Column, Curve | None]],
    limits: tuple[float, float],
) -> None:
    for other, drawn in curves.items():
        curve = drawn[column]
        if curve and other not in (arm, SINGLE):
            axes.plot(curve[0], curve[1], color=GRID, linewidth=0.9)
    alone, own = curves.get(SINGLE, {}).get(column), curves[arm][column]
    if alone:
        axes.plot(alone[0], alone[1], color=TEXT, linewidth=1.0, linestyle=(0, (3, 2)))
    if own:
        axes.fill_between(own[0], own[2], own[3], color=ACCENT, alpha=0.25, linewidth=0)
        axes.plot(own[0], own[1], color=ACCENT, linewidth=1.6)
    unit = " %" if column.metric in PERCENT else ""
    title = f"{clipped(column.task)}: {clipped(NAMES.get(column.metric, column.metric))}{unit}"
    axes.set_title(title, loc="left", fontsize=8.5)
    axes.set_ylim(*limits)


def _draw_weights(axes: Axes, curves: Sequence[tuple[str, Curve | None]]) -> None:
    for i, (_, curve) in enumerate(curves):
        if curve:
            # of two equal lines the second, dashed, leaves the first one visible
            style: Any = "-" if i % 2 == 0 else (0, (4, 2))
            colour = TASKS[i % len(TASKS)]
            axes.fill_between(curve[0], curve[2], curve[3], color=colour, alpha=0.2, linewidth=0)
            axes.plot(curve[0], curve[1], color=colour, linewidth=1.6, linestyle=style, label=f"{i}")
    axes.set_ylim(min(0.0, axes.get_ylim()[0]), axes.get_ylim()[1] * 1.05)
    axes.set_xlabel("epoch")
    legend = axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=_columns(curves), **_LEGEND)
    for text in legend.get_texts():  # named now: a label that starts with _ would be left out
        text.set_text(clipped(curves[int(text.get_text())][0]))


def _columns(curves: Sequence[tuple[str, Curve | None]]) -> int:
    """Of a legend that is no wider than its frame."""
    longest = max(len(clipped(task)) for task, _ in curves)
    return 3 if longest <= 9 else 2 if longest <= 16 else 1


def _dev_curve(results: Sequence[Result], column: Column) -> Curve | None:
    scale = 100 if column.metric in PERCENT else 1
    own = [result for result in results if column.task in result["tasks"]]
    return _curve(own, lambda row: row["dev"].get(column.task, {}).get(column.metric), scale)


def _weight_curve(results: Sequence[Result], task: str) -> Curve | None:
    return _curve(results, lambda row: row["weight"].get(task), 1)


def _curve(results: Sequence[Result], value: Any, scale: float) -> Curve | None:
    """Mean and range over seeds, up to the last epoch that all of them reached."""
    series = [[value(row) for row in result["history"]] for result in results if result["status"] == "ok"]
    series = [
        [math.nan if v is None else scale * v for v in run]
        for run in series
        if any(v is not None for v in run)
    ]
    if not series:
        return None
    by_epoch = list(zip(*series, strict=False))
    epochs = list(range(1, len(by_epoch) + 1))
    mean = [sum(values) / len(values) for values in by_epoch]
    return epochs, mean, [min(values) for values in by_epoch], [max(values) for values in by_epoch]


def _limits(curves: Sequence[Curve | None], column: Column) -> tuple[float, float]:
    """A common y axis for the last three quarters of every curve: a slow start would flatten the rest."""
    drawn = [curve for curve in curves if curve]
    values = [
        value for c in drawn for side in c[1:] for value in side[len(side) // 4 :] if math.isfinite(value)
    ]
    if not values:
        return 0.0, 1.0
    margin = 0.06 * (max(values) - min(values)) or 0.01 * abs(max(values)) or 1.0
    return min(values) - margin, max(values) + margin
