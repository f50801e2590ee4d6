"""The first figure of a comparison: every arm's interval, and what is known by it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..runspec import SINGLE
from .comparison import Comparison
from .drawing import BETTER, GRID, MUTED, TEXT, WORSE, clipped, drawing
from .inference import DELTA, Finding, called

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"better": BETTER, "worse": WORSE, "equal": TEXT, "unresolved": MUTED}


def verdict_figure(comparison: Comparison) -> str:
    """SVG: every arm's mean Δm and its interval, sorted, coloured by verdict; what does not matter is shaded.

    Against equal weights, else single-task training. Empty where no arm has an interval.
    """
    against = comparison.against
    found = [f for f in comparison.findings if (f.against, f.what) == (against, DELTA)]
    found = [f for f in found if math.isfinite(f.verdict.interval.half)]
    if not found:
        return ""
    found.sort(key=lambda f: f.verdict.interval.mean)
    what = called(str(against))
    size, label = (7.4, 0.7 + 0.22 * len(found)), f"{DELTA} of every arm against {what}"
    with drawing(1, size, label, f"{comparison.problem} verdicts") as (figure, svg):
        axes = figure.get_axes()[0]
        axes.axvspan(-comparison.worth, comparison.worth, color=GRID, alpha=0.35, linewidth=0)
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for place, finding in enumerate(found):
            _bar(axes, place, finding)
        axes.yaxis.set_ticks(range(len(found)), [clipped(f.arm) for f in found])
        axes.set_ylim(-0.7, len(found) - 0.3)
        axes.set_xlabel(f"{DELTA} against {what}, points of %; shaded: less than matters")
        axes.grid(axis="y", visible=False)
    return svg[0]


def _bar(axes: Axes, place: int, finding: Finding) -> None:
    own, colour = finding.verdict.interval, COLOURS[finding.verdict.verdict]
    axes.plot([own.low, own.high], [place, place], color=colour, linewidth=1.6)
    filled = "none" if finding.arm == SINGLE else colour
    axes.plot([own.mean], [place], "o", color=colour, markerfacecolor=filled, markersize=4.5)
