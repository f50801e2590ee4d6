"""From labelled data to tasks and examples: labels, constant-predictor scores, splits by seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..problem import Example
from ..task import MISSING, Task, is_iob2

Item = TypeVar("Item")

SPLIT_SEED = 20260101  #: of the splits that are drawn here; the same on every platform
FEWEST = 20  #: rows or sentences of a user's file that is split here
FINEST = 1e-5  #: deviation over mean of a target; float32, which the model is in, keeps 6e-8
SMALLEST = 1e-30  #: deviation of a target


def split(items: Sequence[Item], dev: float, test: float) -> dict[str, list[Item]]:
    """Draw ``train``, ``dev`` and ``test`` with a fixed seed; ``dev`` and ``test`` are shares."""
    order = list(items)
    random.Random(SPLIT_SEED).shuffle(order)
    n_dev, n_test = max(1, round(dev * len(order))), max(1, round(test * len(order)))
    return {
        "train": order[n_dev + n_test :],
        "dev": order[:n_dev],
        "test": order[n_dev : n_dev + n_test],
    }


def split_file(items: Sequence[Item], path: str, what: str, share: float) -> dict[str, list[Item]]:
    """A user's file, split; `what` its items are. Raises ValueError for fewer than `FEWEST`."""
    if len(items) < FEWEST:
        raise ValueError(f"{path}: expected at least {FEWEST} {what} to split, found {len(items)}.")
    return split(items, dev=share, test=share)


def label_task(
    name: str, kind: Any, splits: Mapping[str, Sequence[Any]], metrics: tuple[str, ...] = ()
) -> Task:
    """A task on label names: lists of them for ``kind`` "tokens", one each for "classification".

    Labels of dev and test that training does not have are labels too, so that they count as errors. Without
    ``metrics``, words with IOB2 labels are scored by span F1, others by accuracy, classes also by macro F1.
    ``auroc`` and ``average_precision`` are those of the second of two labels.

    Raises:
        ValueError: fewer than two labels, or none in training.
    """
    known = {part: [item for item in items if item is not None] for part, items in splits.items()}
    if kind == "tokens":
        flat = {part: [x for item in items for x in item if x is not None] for part, items in known.items()}
    else:
        flat = known
    labels = sorted({x for items in flat.values() for x in items}, key=lambda label: (label != "O", label))
    if len(labels) < 2:
        raise ValueError(f"task {name!r} expects two labels or more, found {', '.join(labels) or 'none'}.")
    if not flat["train"]:
        raise ValueError(f"task {name!r} has no label in the training split.")
    if not metrics:
        spans = kind == "tokens" and all(map(is_iob2, labels))
        metrics = ("span_f1",) if spans else ("accuracy",) if kind == "tokens" else ("accuracy", "macro_f1")
    majority = Counter(flat["train"]).most_common(1)[0][1] / len(flat["train"])
    positive = flat["train"].count(labels[-1]) / len(flat["train"])
    constant = {"accuracy": majority, "auroc": 0.5, "average_precision": positive}
    untrained = constant.get(metrics[0], 0.0)
    return Task(name, kind, metrics, tuple(labels), untrained=untrained)


def number_task(
    name: str, values: Sequence[float | None], metrics: tuple[str, ...], *, standardise: bool = False
) -> Task:
    """A regression task from its training targets; its loss in squared raw units or ``standardise``d, in
    squared deviations of these targets, so that it is the same whatever the unit. Scores are in the unit.

    Raises:
        ValueError: fewer than two different numbers, or numbers that float32 cannot tell apart.
    """
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) == 0 or np.ptp(known) == 0:
        found = "none" if len(known) == 0 else f"only {known[0]:g}"
        raise ValueError(f"task {name!r} expects different numbers in the training split, found {found}.")
    mean, std = float(known.mean()), float(known.std())
    if not std > max(FINEST * abs(mean), SMALLEST):
        raise ValueError(
            f"task {name!r} has numbers about {mean:.10g} that differ by {std:g}, which float32 cannot tell "
            "apart: subtract a constant, or change the unit."
        )
    constant = {"rmse": std, "mae": float(np.abs(known - mean).mean()), "rrmse": 1.0}
    untrained, target = constant.get(metrics[0], 0.0), float(metrics[0] not in constant)
    unit = std if standardise else 1.0
    return Task(name, "regression", metrics, (), untrained, target, mean, std, unit)


def _encoder(task: Task) -> Callable[[Any], Any]:
    """From a target to what an example holds: label names as ids, numbers and None as they are; a word
    without a label as -100."""
    if task.kind == "regression":
        return lambda value: value
    ids = {label: index for index, label in enumerate(task.labels)}
    if task.kind == "tokens":
        return lambda value: None if value is None else [ids.get(label, MISSING) for label in value]
    return lambda value: None if value is None else ids[value]


def examples(
    tasks: Sequence[Task], splits: Mapping[str, Iterable[tuple[Any, Mapping[str, Any]]]]
) -> dict[str, list[Example]]:
    """Examples from (input, targets by name) pairs, targets encoded."""
    encoders = {task.name: _encoder(task) for task in tasks}
    return {
        part: [
            {"input": given, "targets": {name: encode(targets[name]) for name, encode in encoders.items()}}
            for given, targets in items
        ]
        for part, items in splits.items()
    }
