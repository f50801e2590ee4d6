"""Dynamic task prioritisation (Guo et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least, check_share

#: The least indicator, where the logarithm has no value at 0: weights stay below 4.7.
FLOOR = 0.01


class DynamicTaskPriority(LossStrategy):
    """DTP: a focal weight on each task's validation score, re-set every epoch.

    ``w_i = -(1 - k_i)^gamma log k_i`` with k_i the moving average of task i's score, clipped to [0, 1]
    (1 = target reached, 0 = untrained); ones until the first scores. Not normalised.

    M. Guo, A. Haque, D.-A. Huang, S. Yeung, L. Fei-Fei, "Dynamic Task Prioritization for Multitask
    Learning", ECCV 2018, https://doi.org/10.1007/978-3-030-01270-0_17. The paper also weights the
    examples within a task by a focal loss, which is the task's own affair here.

    As in the paper a task at its target has weight 0 and stops learning until its score falls. Departures:
    our scores in place of raw metrics such as accuracy, so a task at its *target*, not at 1.0, is done;
    k_i is floored at 0.01; scores are taken once an epoch. A task without a score (NaN) keeps its average;
    one that never had any keeps weight 1.

    Args:
        n_tasks: T.
        gamma: >= 0, how much easy tasks are played down.
        rate: in (0, 1], the share of a new score in the average; the first score is taken whole.
    """

    paper = "Guo et al. 2018, https://doi.org/10.1007/978-3-030-01270-0_17"
    family = "validation"
    space = {"gamma": (0.0, 4.0), "rate": (0.05, 1.0)}  # noqa: RUF012
    needs = ("end_epoch",)
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    indicator: Tensor
    weight: Tensor

    def __init__(self, n_tasks: int, *, gamma: float = 1.0, rate: float = 0.1) -> None:
        super().__init__(n_tasks)
        check_at_least(0, gamma=gamma)
        check_share(rate=rate)
        self.gamma, self.rate = gamma, rate
        self.register_buffer("indicator", torch.full((n_tasks,), float("nan")))
        self.register_buffer("weight", torch.ones(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]."""
        weight = self.weight[present]
        return (weight * losses).sum()

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Takes the validation ``scores`` [T] and sets the next epoch's weights."""
        if scores is None:
            return
        self.indicator.copy_(moving_average(self.indicator, scores, self.rate))
        k = self.indicator.clamp(FLOOR, 1)
        weight = -((1 - k) ** self.gamma) * torch.log(k)
        self.weight.copy_(torch.where(torch.isnan(self.indicator), 1.0, weight))


def moving_average(average: Tensor, scores: np.ndarray, rate: float) -> Tensor:
    """``average`` [T] with a share ``rate`` of new ``scores`` [T], clipped to [0, 1]; NaN is no score."""
    new = torch.as_tensor(scores).to(average).clamp(0, 1)
    mixed = torch.where(torch.isnan(average), new, average + rate * (new - average))
    return torch.where(torch.isnan(new), average, mixed)
