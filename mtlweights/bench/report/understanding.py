"""Figures of what a model has learnt, on matplotlib's axes: gradients, affinities, words, states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...train.understanding import TaskTrace

COLOURS, LINE = 10, 66  #: of points at most; characters that fit above a frame


def draw_cosines(axis: Any, trace: TaskTrace, first: int = 0, second: int = 1) -> None:
    """The cosine of two tasks' gradients over the epochs, a line for each layer that both reach."""
    for layer, values in trace.cosines.items():
        line = np.array(values)[:, first, second]
        if not np.isnan(line).all():
            axis.plot(trace.epochs, line, "o-", markersize=3, label=layer)
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set(xlabel="epoch", ylabel=f"cosine of {trace.tasks[first]} and {trace.tasks[second]}")
    _legend(axis)


def draw_norms(axis: Any, trace: TaskTrace, layer: str) -> None:
    """The lengths of the tasks' gradients in a layer over the epochs, on a log axis if they differ much."""
    for name, line in zip(trace.tasks, np.array(trace.norms[layer]).T, strict=True):
        axis.plot(trace.epochs, line, "o-", markersize=3, label=name)
    axis.set(xlabel="epoch", ylabel=f"gradient norm in {layer}")
    known = [value for value in np.ravel(trace.norms[layer]) if value > 0]
    if known and max(known) > 10 * min(known):
        from matplotlib.ticker import NullFormatter

        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")  # a page shows no formulas
        axis.yaxis.set_minor_formatter(NullFormatter())
    elif known:
        axis.set_ylim(bottom=0)
    _legend(axis)


def draw_affinity(axis: Any, trace: TaskTrace) -> None:
    """Which task helps which: the mean over the epochs, the helping one in a row."""
    mean = np.array(trace.affinity).mean(0)
    most = float(np.abs(mean).max()) or 1.0
    axis.pcolormesh(mean, cmap="RdBu", vmin=-most, vmax=most)  # paths, where an image would need a file
    for (i, j), value in np.ndenumerate(mean):
        colour = "white" if abs(value) > 0.6 * most else "black"
        axis.text(j + 0.5, i + 0.5, f"{value:+.2g}", ha="center", va="center", fontsize=8, color=colour)
    places = np.arange(len(trace.tasks)) + 0.5
    axis.set(xticks=places, xticklabels=trace.tasks, yticks=places, yticklabels=trace.tasks, aspect="equal")
    axis.set(xlabel="is helped", ylabel="one step on")
    axis.grid(False)
    axis.invert_yaxis()


def draw_words(axis: Any, sentence: Sequence[str], values: Sequence[float], title: str) -> None:
    """What each word adds to a label."""
    colours = ["tab:blue" if value > 0 else "tab:red" for value in values]
    axis.bar(range(len(sentence)), values, color=colours)
    axis.set_axisbelow(True)
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set_xticks(range(len(sentence)), sentence, rotation=45, ha="right", fontsize=8)
    axis.set(ylabel="adds to the logit", title=title)


def draw_states(axis: Any, points: np.ndarray, labels: Sequence[str]) -> None:
    """States on two axes, a colour for each label, of as many of the most frequent as there are colours."""
    most = [label for label, _ in Counter(labels).most_common()]
    own = most if len(most) <= COLOURS else most[: COLOURS - 1]
    rest = [k for k, label in enumerate(labels) if label not in own]
    if rest:
        name = f"{len(most) - len(own)} others"
        axis.plot(*points[rest].T, ".", markersize=4, color="grey", alpha=0.6, label=name)
    for label in sorted(own):
        chosen = [k for k, found in enumerate(labels) if found == label]
        axis.plot(*points[chosen].T, ".", markersize=4, label=label)
    axis.set(xlabel="first component", ylabel="second component")
    _legend(axis)


def _legend(axis: Any) -> None:
    """Above the frame, where it hides nothing, in as many columns as fit."""
    names = axis.get_legend_handles_labels()[1]
    if names:  # a label that is empty or begins with an underscore is none
        columns = max(1, min(4, LINE // (max(map(len, names)) + 6)))
        place = {"loc": "lower left", "bbox_to_anchor": (0, 1)}
        axis.legend(fontsize=7, frameon=False, ncols=columns, columnspacing=1.2, handlelength=1.2, **place)
