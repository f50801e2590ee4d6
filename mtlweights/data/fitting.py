"""From labelled data to tasks and examples: labels, constant-predictor scores, splits by seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from ..tasks import MISSING, Task, is_iob2
from .problem import Example

Item = TypeVar("Item")

SPLIT_SEED = 20260101  #: of the splits that are drawn here; the same on every platform


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


def label_task(
    name: str, kind: Any, splits: Mapping[str, Sequence[Any]], metrics: tuple[str, ...] = ()
) -> Task:
    """A task on label names: lists of them for ``kind`` "tokens", one each for "classification".

    Labels of dev and test that training does not have are labels too, so that they count as errors. Without
    ``metrics``, words with IOB2 labels are scored by span F1, others by accuracy, classes also by macro F1.
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
    untrained = majority if metrics[0] == "accuracy" else 0.0
    return Task(name, kind, metrics, tuple(labels), untrained=untrained)


def number_task(name: str, values: Sequence[float | None], metrics: tuple[str, ...]) -> Task:
    """A regression task from its training targets."""
    known = np.array([value for value in values if value is not None], dtype=np.float64)
    if len(known) == 0 or np.ptp(known) == 0:
        found = "none" if len(known) == 0 else f"only {known[0]:g}"
        raise ValueError(f"task {name!r} expects different numbers in the training split, found {found}.")
    mean, std = float(known.mean()), float(known.std())
    untrained, target = (std, 0.0) if metrics[0] == "rmse" else (0.0, 1.0)
    return Task(name, "regression", metrics, untrained=untrained, target=target, mean=mean, std=std)


def encode(task: Task, value: Any) -> Any:
    """A target as an example holds it: label names as ids, numbers and None as they are; a word without a
    label as -100."""
    if value is None or task.kind == "regression":
        return value
    ids = {label: index for index, label in enumerate(task.labels)}
    return [ids.get(label, MISSING) for label in value] if task.kind == "tokens" else ids[value]


def examples(
    tasks: Sequence[Task], splits: Mapping[str, Sequence[tuple[Any, Mapping[str, Any]]]]
) -> dict[str, list[Example]]:
    """Examples from (input, targets by name) pairs, targets encoded."""
    return {
        part: [
            {"input": given, "targets": {task.name: encode(task, targets[task.name]) for task in tasks}}
            for given, targets in items
        ]
        for part, items in splits.items()
    }
