"""What a smaller model is worth: each task's score, and an interval of its loss against the whole model."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...problems import Problem, Task
from ..trained import TrainedModel

GROUPS = 20  #: of the jackknife

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


def qualities(model: TrainedModel, outputs: Outputs, original: Outputs) -> dict[str, Quality]:
    """Each task's quality, the interval by a jackknife over `GROUPS` groups of the same examples.

    It tells what other examples would change, not what another seed of the training would.
    """
    return {task.name: _quality(task, outputs[task.name], original[task.name]) for task in model.tasks}


def _quality(task: Task, own: list[tuple[Tensor, Tensor]], original: list[tuple[Tensor, Tensor]]) -> Quality:
    from scipy.special import stdtrit

    whole = _score(task, own)
    groups = min(GROUPS, len(own))
    without = []
    for group in range(groups):
        rest = [i for i in range(len(own)) if i % groups != group]
        without.append(_score(task, [own[i] for i in rest]) - _score(task, [original[i] for i in rest]))
    known = np.array([value for value in without if math.isfinite(value)])
    if len(known) < 2:
        return Quality(whole, whole - _score(task, original), math.inf)
    n = len(known)
    error = math.sqrt((n - 1) / n * float(np.sum((known - known.mean()) ** 2)))
    return Quality(whole, whole - _score(task, original), float(stdtrit(n - 1, 0.975)) * error)


def _score(task: Task, items: list[tuple[Tensor, Tensor]]) -> float:
    metric = task.metrics[0]
    return task.score([output for output, _ in items], [target for _, target in items])[metric]
