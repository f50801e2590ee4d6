"""Draws ``toy.png`` and ``losses.png`` (the Nash-MTL paper's five starts, as points and as losses) and
``cagrad.png`` (the CAGrad paper's three starts, as points).

``python benchmarks/toy/figure.py --out DIR``, with the folder that ``run.py`` has filled.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from run import HERE, HIT, PROTOCOLS, path_of

from mtlweights.problems.data.toy import distance, front, losses

LIMIT = 10.8
TEXT, MUTED, FRONT = "#1a1a1a", "#6b6b6b", "#f0c808"
#: one colour per start, apart for colour-blind readers and in grey
STARTS = ("#0072b2", "#d55e00", "#009e73", "#882255", "#56b4e9")
STYLE: dict[Any, Any] = {
    "font.size": 8.5,
    "text.color": TEXT,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.6,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
}


def draw(key: str, folder: Path, target: Path, *, as_losses: bool = False) -> None:
    """One panel per method that has all its runs, four in a row."""
    protocol = PROTOCOLS[key]
    count = len(protocol.starts)
    methods = [
        spec for spec in protocol.methods if all(path_of(folder, key, spec, i).exists() for i in range(count))
    ]
    lines = -(-len(methods) // 4)
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.42 * lines + 0.5), layout="constrained")
        grid = figure.subplots(lines, 4, sharex=True, sharey=True, squeeze=False)
        for axes, spec in zip(grid.flat, methods, strict=False):
            loss_backdrop(axes, protocol.scale) if as_losses else backdrop(axes, protocol.scale)
            runs = [read(path_of(folder, key, spec, i)) for i in range(count)]
            reached = [bool(distance(points[-1]) < HIT) for points in runs]
            for start, points in enumerate(runs):
                way(axes, valued(points, protocol.scale) if as_losses else points, start, reached[start])
            axes.set_title(f"{protocol.methods[spec]}   {sum(reached)}/{count}")
        for axes in grid.flat[len(methods) :]:
            axes.axis("off")
        for axes in grid[-1]:
            axes.set_xlabel(f"${protocol.scale:g}\\,L_1$" if as_losses else "$x_1$")
        for axes in grid[:, 0]:
            axes.set_ylabel("$L_2$" if as_losses else "$x_2$", rotation=0)
        handles = legend(None if as_losses else protocol.scale)
        figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
        figure.savefig(target, dpi=170, bbox_inches="tight", pad_inches=0.08)


def read(path: Path) -> np.ndarray:
    """The run's points [n, 2], its last one included."""
    with np.load(path) as kept:
        return np.concatenate([kept["path"], kept["last"][None]])


def backdrop(axes: Axes, scale: float) -> None:
    """Contours of the mean loss as the run has it, and the Pareto set."""
    line = np.linspace(-LIMIT, LIMIT, 300)
    points = torch.from_numpy(np.stack(np.meshgrid(line, line), -1))
    mean = (losses(points) * torch.tensor([scale, 1.0])).mean(-1).numpy()
    levels = np.linspace(mean.min(), mean.max(), 15)
    axes.contourf(line, line, mean, levels, cmap="Greys_r", alpha=0.28, zorder=0)
    axes.contour(line, line, mean, levels, colors="#9a9a9a", linewidths=0.35, linestyles="-", zorder=1)
    x1 = np.linspace(-7, 7, 60)
    axes.plot(x1, front(x1), color=FRONT, linewidth=5, solid_capstyle="round", zorder=2)
    axes.set_xlim(-LIMIT, LIMIT)
    axes.set_ylim(-LIMIT, LIMIT)
    axes.set_xticks([-10, -5, 0, 5, 10])
    axes.set_yticks([-10, -5, 0, 5, 10])
    axes.set_aspect("equal")


def valued(points: np.ndarray, scale: float) -> np.ndarray:
    """The losses [n, 2] of points [n, 2], the first times ``scale``."""
    return np.asarray(losses(torch.from_numpy(points)).numpy() * [scale, 1.0])


def loss_backdrop(axes: Axes, scale: float) -> None:
    """The Pareto front in the plane of the losses."""
    x1 = np.linspace(-7, 7, 200)
    best = valued(np.stack([x1, front(x1)], -1), scale)
    axes.plot(*best.T, color=FRONT, linewidth=5, solid_capstyle="round", zorder=2)
    axes.grid(color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)


def way(axes: Axes, points: np.ndarray, start: int, reached: bool) -> None:
    """One trajectory from its ring to its dot, or to a cross if it did not reach the front."""
    colour = STARTS[start]
    axes.plot(*points.T, color=colour, linewidth=1.4, zorder=3, solid_capstyle="round")
    ring = {"color": "white", "markeredgecolor": colour, "markeredgewidth": 1.4, "markersize": 5}
    axes.plot(*points[0], "o", zorder=4, **ring)
    if reached:  # later ones smaller, so that ends at one place show as rings
        style = {"markersize": 9.5 - 1.5 * start, "markeredgecolor": "white", "markeredgewidth": 0.6}
    else:
        style = {"markersize": 6.5, "markeredgewidth": 2.0}
    axes.plot(*points[-1], "o" if reached else "x", color=colour, zorder=5 + start, **style)


def legend(scale: float | None) -> list[Line2D]:
    """What the marks mean; ``scale`` where there are contours."""
    ring = {"marker": "o", "color": "white", "markeredgecolor": TEXT, "markeredgewidth": 1.4, "markersize": 5}
    handles = [
        Line2D([], [], linestyle="", label="start", **ring),
        Line2D([], [], linestyle="", marker="o", color=TEXT, markersize=6.5, label="ends on the front"),
        Line2D([], [], linestyle="", marker="x", color=TEXT, markeredgewidth=2, label="does not"),
        Line2D([], [], color=FRONT, linewidth=5, label="Pareto front" if scale is None else "Pareto set"),
    ]
    if scale is not None:
        label = "mean loss" if scale == 1 else f"mean loss, the first times {scale:g}"
        handles.append(Line2D([], [], color="#9a9a9a", linewidth=0.8, label=label))
    return handles


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    folder = parser.parse_args().out
    draw("nash", folder, HERE / "toy.png")
    draw("nash", folder, HERE / "losses.png", as_losses=True)
    draw("cagrad", folder, HERE / "cagrad.png")


if __name__ == "__main__":
    main()
