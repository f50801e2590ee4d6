"""What a smaller model is worth: each task's score, and an interval of its loss against the whole model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...problems import Problem, Task
from ..trained import TrainedModel

GROUPS = 10  #: of the jackknife

Outputs = dict[str, list[tuple[Tensor, Tensor]]]  # task -> output and target of each example


class Quality(NamedTuple):
    """The first metric of a task on a split, and how far it is from the original's."""

    score: float
    difference: float
    half: float  #: half of the 95 % interval of the difference


def outputs_of(model: TrainedModel, problem: Problem, split: str = "test") -> Outputs:
    """Outputs and targets of every example with a label."""
    found: Outputs = {task.name: [] for task in model.tasks}
    examples = problem.splits[split]
    for start in range(0, len(examples), 64):
        batch = examples[start : start + 64]
        targets = problem.collate(batch)["targets"]
        outputs = model.runtime(model.inputs([example["input"] for example in batch]))
        for name, target in targets.items():
            output = torch.from_numpy(np.array(outputs[name]))
            found[name] += [(output[i : i + 1], target[i : i + 1]) for i in range(len(batch))]
    return found


class Scores(NamedTuple):
    """The first metric of a task on a split, and without each of some groups of its examples."""

    whole: float
    without: list[float]


def scores(tasks: Sequence[Task], outputs: Outputs) -> dict[str, Scores]:
    """Each task's."""
    return {task.name: _scores(task, outputs[task.name]) for task in tasks}


def qualities(own: dict[str, Scores], original: dict[str, Scores]) -> dict[str, Quality]:
    """Each task's quality, the interval by a jackknife over `GROUPS` groups of the same examples.

    It tells what other examples would change, not what another seed of the training would.
    """
    return {name: _quality(found, original[name]) for name, found in own.items()}


def _scores(task: Task, items: list[tuple[Tensor, Tensor]]) -> Scores:
    groups = min(GROUPS, len(items))
    rests = [[item for i, item in enumerate(items) if i % groups != group] for group in range(groups)]
    return Scores(_score(task, items), [_score(task, rest) for rest in rests])


def _quality(own: Scores, original: Scores) -> Quality:
    from scipy.special import stdtrit

    pairs = zip(own.without, original.without, strict=True)
    known = np.array([one - other for one, other in pairs if math.isfinite(one - other)])
    n, half = len(known), math.inf
    if n > 1:
        error = math.sqrt((n - 1) / n * float(np.sum((known - known.mean()) ** 2)))
        half = float(stdtrit(n - 1, 0.975)) * error
    return Quality(own.whole, own.whole - original.whole, half)


def _score(task: Task, items: list[tuple[Tensor, Tensor]]) -> float:
    if not items:
        return math.nan
    metric = task.metrics[0]
    return task.score([output for output, _ in items], [target for _, target in items])[metric]
