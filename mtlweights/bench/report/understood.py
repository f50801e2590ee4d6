"""What a run's model has learnt on the page, drawn from the run's ``understanding.json``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ...files import schemas
from ...files.reading import read_json
from ...files.schemas import NUMBER, Each, Maybe
from ...train.understood import FILE
from . import understanding as draw
from .drawing import clipped, drawing

LARGEST = 64 << 20  #: bytes
PAIRS, LAYERS, TALLEST = 6, 8, 6.0  #: frames of each kind at most; inches
_ROWS = [[Maybe(NUMBER)]]
SHAPE: dict[str, Any] = {
    "tasks": [str],
    "epochs": [int],
    "affinity": [_ROWS],
    "norms": Each(_ROWS),
    "cosines": Each([_ROWS]),
    "words?": [{"task": str, "sentence": [str], "word": Maybe(int), "label": str, "values": [NUMBER]}],
    "states?": {"title": str, "points": [[NUMBER]], "groups": [str]},
}


def understood(folder: Path) -> dict[str, Any] | None:
    """What the template shows of ``folder/understanding.json``; None without one.

    Raises:
        ValueError: the file holds something else.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        found = read_json(path, LARGEST)
        schemas.check(found, SHAPE, "the file")
        figures = _figures(found)
    except (ValueError, IndexError, RecursionError) as error:
        raise ValueError(f"{path} is no record of what a model has learnt: {error}") from None
    return {"id": "understanding", "title": "What the model has learnt", "figures": figures}


def _figures(found: Mapping[str, Any]) -> dict[str, str]:
    """Caption -> SVG."""
    trace = _trace(found)
    plans: dict[str, tuple[tuple[float, float], Callable[[Any], None]]] = {}
    n, pairs = len(trace.tasks), [*combinations(range(len(trace.tasks)), 2)]
    both = [layer for layer, values in trace.norms.items() if np.isfinite(values[-1]).sum() > 1]
    for i, j in pairs[:PAIRS]:
        title = f"Cosine of the gradients of {trace.tasks[i]} and {trace.tasks[j]}"
        plans[title] = (4.6, 3.2), partial(draw.draw_cosines, trace=trace, first=i, second=j)
    for layer in both[:LAYERS]:
        title = f"Length of the gradients in {layer}"
        plans[title] = (4.6, 2.8), partial(draw.draw_norms, trace=trace, layer=layer)
    if n > 1:
        side = min(2.0 + 0.5 * n, TALLEST)
        plans["Which task helps which"] = (side + 0.8, side), partial(draw.draw_affinity, trace=trace)
    for each in found.get("words", ()):
        _same(each["sentence"], each["values"])
        title = f"What each word adds to {each['label']}, by the head of {each['task']}"
        plans[title] = (4.6, 2.8), partial(_words, each=each)
    if states := found.get("states"):
        title = "States of the encoder" + (f", by {states['title']}" if states["title"] else "")
        points = np.array(states["points"], dtype=float).reshape(-1, 2)
        _same(points, states["groups"])
        plans[title] = (4.6, 3.6), partial(draw.draw_states, points=points, labels=states["groups"])
    return {clipped(title, 90): _svg(title, *plan) for title, plan in plans.items()}


def _trace(found: Mapping[str, Any]) -> Any:
    """As a `TaskTrace` has it; None is NaN."""
    by_layer = {
        key: {layer: np.array(values, dtype=float) for layer, values in found[key].items()}
        for key in ("norms", "cosines")
    }
    affinity = np.array(found["affinity"], dtype=float)
    n, epochs = len(found["tasks"]), len(found["epochs"])
    shapes: list[tuple[Any, tuple[int, ...]]] = [(affinity, (epochs, n, n))]
    shapes += [(values, (epochs, n)) for values in by_layer["norms"].values()]
    shapes += [(values, (epochs, n, n)) for values in by_layer["cosines"].values()]
    if not (n and epochs and all(values.shape == shape for values, shape in shapes)):
        raise ValueError(f"expected values of {n} tasks in {epochs} epochs")
    return SimpleNamespace(tasks=found["tasks"], epochs=found["epochs"], affinity=affinity, **by_layer)


def _same(some: Any, others: Any) -> None:
    if len(some) != len(others):
        raise ValueError(f"expected {len(some)} values, found {len(others)}")


def _words(axis: Any, each: Mapping[str, Any]) -> None:
    of = "the sentence" if each["word"] is None else repr(each["sentence"][each["word"]])
    title = clipped(f"{each['label']} for {of}", 60)
    draw.draw_words(axis, [clipped(word) for word in each["sentence"]], each["values"], title)


def _svg(title: str, size: tuple[float, float], fill: Callable[[Any], None]) -> str:
    with drawing(1, size, title, f"understanding {title}") as (figure, svg):
        fill(figure.get_axes()[0])
    return svg[0]
