"""What the test set's own size leaves open: every run's scores under a bootstrap of the test examples.

All runs on a problem see the same draws, so that differences between arms are paired by example too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import problems
from ..problems import Task
from . import predictions
from .predictions import Predictions
from .results import RUNS, read_result, write_result
from .runspec import RunSpec
from .statistics.items import resampled, weights

RESAMPLED = "resampled"  #: key of a result: task -> its first metric in every draw
_DIGITS = 5


def resample(runs: Iterable[RunSpec], folder: Path) -> None:
    """Add the draws to the results that have none yet and whose predictions are there.

    Raises:
        OSError: a result cannot be written.
    """
    lacking: dict[str, list[dict[str, Any]]] = {}
    for id in {run.id for run in runs}:
        result = read_result(folder / RUNS / f"{id}.json")
        if not result.get(RESAMPLED) and predictions.path_of(id, folder).is_file():
            lacking.setdefault(result["problem"], []).append(result)
    for name, results in lacking.items():
        problem = problems.load(name)
        drawn = weights(len(problem.splits["test"]))
        for result in results:
            if draws := _draws(problem.tasks, predictions.read(result["id"], folder) or {}, drawn):
                write_result({**result, RESAMPLED: draws}, folder)


def _draws(
    tasks: Iterable[Task], found: Mapping[str, Predictions], drawn: NDArray[np.float64]
) -> dict[str, list[float]]:
    draws = {}
    for task in tasks:
        own = found.get(task.name)
        if own is None or len(own.sizes) != drawn.shape[1]:
            continue
        values = resampled(task.metrics[0], own.predicted, own.expected, own.sizes, task.labels, drawn)
        if values is not None and np.isfinite(values).all():
            draws[task.name] = [float(f"{value:.{_DIGITS}g}") for value in values]
    return draws
