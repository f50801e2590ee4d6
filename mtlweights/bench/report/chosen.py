"""What every arm chose under its budget, and what more trials were worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..runspec import SINGLE
from ..selection import Choice
from .drawing import ACCENT, GRID, TEXT, clipped, drawing
from .table import Cell, Grid

WIDTH = 3.1  #: inches of a frame


def arm_label(choice: Choice) -> str:
    """The arm's name; single-task training has one choice per task."""
    return choice.arm if choice.only is None else f"{choice.arm}: {choice.only}"


def chosen_grid(choices: Sequence[Choice]) -> Grid | None:
    """Per arm: strategy and learning rate chosen, and the validation scores of default and chosen trial."""
    if not choices:
        return None
    trials = len(choices[0].trials)
    text = "1 trial each: the defaults" if trials == 1 else f"the best of {trials} trials each, by validation"
    heads = [
        ("", "strategy"),
        ("", "learning rate"),
        ("validation score", "default"),
        ("validation score", "best"),
    ]
    grid = Grid(f"What every arm is run with ({text})", heads, [])
    for choice in choices:
        own, first = choice.trials[choice.chosen], choice.trials[0]
        scores = [Cell(_score(trial.get("score"))) for trial in (first, own)]
        rate = Cell(f"{own['settings'].get('lr', math.nan):.3g}")
        grid.rows.append((arm_label(choice), [Cell(str(own["strategy"])), rate, *scores]))
    return grid


def _score(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def expected_best(scores: Sequence[float]) -> list[float]:
    """The expected best of n of the N trials, n = 1 .. N, drawn without replacement.

    E_n = sum_i s_(i) C(i - 1, n - 1) / C(N, n), s_(i) ascending (Dodge et al. 2019, section 3, without
    replacement as in Tang et al. 2020).
    """
    ordered, total = sorted(scores), len(scores)
    return [
        sum(s * math.comb(i, n - 1) for i, s in enumerate(ordered)) / math.comb(total, n)
        for n in range(1, total + 1)
    ]


def tuning_curves(choices: Sequence[Choice]) -> dict[str, str]:
    """Arm -> SVG: the expected best validation score of n trials, the other arms behind it in grey."""
    curves = {
        choice.arm: expected_best([t["score"] for t in choice.trials if t.get("score") is not None])
        for choice in choices
        if choice.arm != SINGLE and len(choice.trials) > 1
    }
    curves = {arm: curve for arm, curve in curves.items() if len(curve) > 1}
    found = {}
    for arm, own in curves.items():
        key = f"{choices[0].problem} {choices[0].budget} {arm} tuning"
        with drawing(1, (WIDTH, 1.7), f"Expected best of n trials of {arm}", key) as (figure, svg):
            axes = figure.get_axes()[0]
            for other, curve in curves.items():
                if other not in (arm, "equal"):
                    axes.plot(range(1, len(curve) + 1), curve, color=GRID, linewidth=0.9)
            if "equal" in curves:
                equal: Any = curves["equal"]
                axes.plot(range(1, len(equal) + 1), equal, color=TEXT, linewidth=1.0, linestyle=(0, (3, 2)))
            axes.plot(range(1, len(own) + 1), own, color=ACCENT, linewidth=1.6)
            axes.set_title(clipped(arm), loc="left", fontsize=8.5)
            axes.set_xlabel("trials")
        found[arm] = svg[0]
    return found
