"""From columns to a problem: tasks, inputs and examples of a table, however it was read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from ..models.features import Feature
from ..task import METRICS, Task
from .column import Column, Encoder
from .from_examples import Splits
from .labels import examples, label_task, number_task

CLASSIFIED, REGRESSED = ("accuracy", "macro_f1"), ("rmse", "pearson")
_CHUNK = 10_000  # rows


class Targets(NamedTuple):
    """Which columns are tasks, and how they are scored and weighed.

    Attributes:
        classify, regress: their names.
        standardise: whether a regression's loss is in squared deviations of training, not in raw units.
        metrics: the first ones of each task, of those that suit its kind; without, the kind's own.
    """

    classify: Sequence[str]
    regress: Sequence[str]
    standardise: bool = True
    metrics: Sequence[str] = ()

    def metrics_of(self, kind: str) -> tuple[str, ...]:
        """The metrics of the tasks of a kind."""
        chosen = tuple(metric for metric in self.metrics if metric in METRICS[kind])
        return chosen or (CLASSIFIED if kind == "classification" else REGRESSED)


class Table(NamedTuple):
    """What a problem is made of.

    Attributes:
        tasks: in the order of the targets.
        splits: examples, whose inputs are rows of numbers.
        features: the columns that those are made of.
        constant: the names of others, which have one value in training.
    """

    tasks: list[Task]
    splits: Splits
    features: list[Feature]
    constant: list[str]


def build_table(
    where: str,
    columns: Mapping[str, Column],
    inputs: Sequence[str],
    parts: Mapping[str, np.ndarray],
    targets: Targets,
) -> Table:
    """Tasks and examples from columns; ``parts``: the rows of each split, ``where``: a name for errors.

    Raises:
        ValueError: a target that is none, or no input that is not constant.
    """
    tasks = _tasks(where, columns, parts, targets)
    found = {key: columns[key].feature(key, parts["train"]) for key in inputs}
    features = [feature for feature in found.values() if feature]
    encoders = [columns[feature.name].encoder(feature) for feature in features]
    if not encoders:
        raise ValueError(
            f"{where}: no input column is left: expected one that is no target and not constant."
        )
    pairs = {key: _pairs(columns, encoders, tasks, rows) for key, rows in parts.items()}
    constant = [key for key, feature in found.items() if not feature]
    return Table(tasks, examples(tasks, pairs), features, constant)


def _tasks(
    where: str, columns: Mapping[str, Column], parts: Mapping[str, np.ndarray], targets: Targets
) -> list[Task]:
    tasks, faults = [], []
    for name in [*targets.classify, *targets.regress]:
        try:
            if name in targets.regress:
                values = _numbers(columns[name], parts["train"])
                metrics = targets.metrics_of("regression")
                tasks.append(number_task(name, values, metrics, standardise=targets.standardise))
            else:
                labels = {key: _labels(columns[name], rows) for key, rows in parts.items()}
                metrics = targets.metrics_of("classification")
                tasks.append(label_task(name, "classification", labels, metrics))
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    if faults:
        raise ValueError(f"{where}: {'; '.join(faults)}.")
    return tasks


def _numbers(column: Column, rows: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in np.array(column.values)[rows].tolist()]


def _labels(column: Column, rows: np.ndarray) -> list[str | None]:
    return [None if code < 0 else column.names[code] for code in np.array(column.codes)[rows].tolist()]


def _pairs(
    columns: Mapping[str, Column], encoders: Sequence[Encoder], tasks: Sequence[Task], rows: np.ndarray
) -> Iterator[tuple[list[float], dict[str, Any]]]:
    """Inputs and targets of these rows, one by one; in chunks, so that little is held twice."""
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        inputs = zip(*(encode(chunk) for encode in encoders), strict=True)
        targets = [
            (_numbers if task.kind == "regression" else _labels)(columns[task.name], chunk) for task in tasks
        ]
        for cells, *values in zip(inputs, *targets, strict=True):
            yield [*chain(*cells)], {task.name: value for task, value in zip(tasks, values, strict=True)}
