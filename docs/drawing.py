"""The figure of a strategy's page: its trajectories on the toy problem, as SVG in the page's own colours."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from mtlweights.problems.data.toy import front

SIZE, SPAN = 360, 10.0  # of the square, in pixels and to each side in the problem's units
COLOURS = ("var(--toy-one)", "var(--toy-two)")


@cache
def _kept() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(
        (Path(__file__).parent / "trajectories.json").read_text(encoding="utf-8")
    )
    return found


def figure(name: str, title: str) -> str:
    """HTML: the trajectories of a strategy over the lines of equal mean loss."""
    kept, x1 = _kept(), np.linspace(-7, 7, 29)
    parts = [f'<path class="toy-line" d="{_path(line)}"/>' for line in kept["contours"]]
    parts.append(f'<path class="toy-front" d="{_path(np.stack([x1, front(x1)], 1))}"/>')
    for run, colour in zip(kept["runs"][name], COLOURS, strict=True):
        (a, b), (c, d) = _at(run[0]), _at(run[-1])
        parts += [
            f'<path class="toy-run" d="{_path(run)}" stroke="{colour}"/>',
            f'<circle cx="{a:.1f}" cy="{b:.1f}" r="5" fill="{colour}"/>',
            f'<circle cx="{c:.1f}" cy="{d:.1f}" r="6" fill="none" stroke="{colour}" stroke-width="2.5"/>',
        ]
    label = escape(f"{title} on the toy problem from two starts")
    svg = f'<svg class="toy" viewBox="0 0 {SIZE} {SIZE}" role="img" aria-label="{label}">'
    return "\n".join(["```{raw} html", svg, *parts, "</svg>", "```"])


def _at(point: Any) -> tuple[float, float]:
    return (point[0] + SPAN) / (2 * SPAN) * SIZE, (SPAN - point[1]) / (2 * SPAN) * SIZE


def _path(points: Any) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in map(_at, points))
