"""Figures of what a model has learnt, on matplotlib's axes: gradients, affinities, words, states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ...train.understanding import TaskTrace


def draw_cosines(axis: Any, trace: TaskTrace, first: int = 0, second: int = 1) -> None:
    """The cosine of two tasks' gradients over the epochs, a line for each layer that both reach."""
    for layer, values in trace.cosines.items():
        line = np.array(values)[:, first, second]
        if not np.isnan(line).all():
            axis.plot(trace.epochs, line, "o-", markersize=3, label=layer)
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set(xlabel="epoch", ylabel=f"cosine of {trace.tasks[first]} and {trace.tasks[second]}")
    axis.legend(fontsize=7)


def draw_norms(axis: Any, trace: TaskTrace, layer: str) -> None:
    """The lengths of the tasks' gradients in a layer over the epochs."""
    for name, line in zip(trace.tasks, np.array(trace.norms[layer]).T, strict=True):
        axis.plot(trace.epochs, line, "o-", markersize=3, label=name)
    axis.set(xlabel="epoch", ylabel=f"gradient norm in {layer}", yscale="log")
    axis.legend(fontsize=7)


def draw_affinity(axis: Any, trace: TaskTrace) -> None:
    """Which task helps which: the mean over the epochs, the helping one in a row."""
    mean = np.array(trace.affinity).mean(0)
    most = float(np.abs(mean).max()) or 1.0
    axis.imshow(mean, cmap="RdBu", vmin=-most, vmax=most)
    for (i, j), value in np.ndenumerate(mean):
        axis.text(j, i, f"{value:+.4f}", ha="center", va="center", fontsize=8)
    places = range(len(trace.tasks))
    axis.set(xticks=places, xticklabels=trace.tasks, yticks=places, yticklabels=trace.tasks)
    axis.set(xlabel="is helped", ylabel="one step on")


def draw_words(axis: Any, sentence: Sequence[str], values: Sequence[float], title: str) -> None:
    """What each word adds to a label."""
    colours = ["tab:blue" if value > 0 else "tab:red" for value in values]
    axis.bar(range(len(sentence)), values, color=colours)
    axis.axhline(0, color="grey", linewidth=0.5)
    axis.set_xticks(range(len(sentence)), sentence, rotation=45, ha="right", fontsize=8)
    axis.set(ylabel="adds to the logit", title=title)


def draw_states(axis: Any, points: np.ndarray, labels: Sequence[str]) -> None:
    """States on two axes, a colour for each label."""
    for label in sorted(set(labels)):
        own = points[[k for k, found in enumerate(labels) if found == label]]
        axis.plot(own[:, 0], own[:, 1], ".", markersize=4, label=label)
    axis.set(xlabel="first component", ylabel="second component")
    axis.legend(fontsize=7)
