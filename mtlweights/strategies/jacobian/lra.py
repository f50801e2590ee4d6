"""LRA, learning-rate annealing of physics-informed networks (Wang, Teng, Perdikaris 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_choice, check_share, check_task
from . import blockwise

_STATISTICS = ("max", "mean")


class LearningRateAnnealing(JacobianStrategy):
    """LRA: the reference's largest gradient element over the mean one of every other loss, averaged.

    With r the reference task, the residual of the equation, ``w_r = 1`` and in every step

    ``w_i = (1 - alpha) w_i + alpha max |g_r| / mean |g_i|``

    from ``w_i = 1``, over the elements of the gradients; the model descends ``sum_i w_i l_i``.

    S. Wang, Y. Teng, P. Perdikaris, "Understanding and Mitigating Gradient Flow Pathologies in
    Physics-Informed Neural Networks", SIAM Journal on Scientific Computing 43, 2021,
    https://arxiv.org/abs/2001.04536, algorithm 1.

    Public code differs. PhysicsNeMo, and ReLoBRaLo's authors in their comparison, have ``mean |g_r|`` above
    the line: ``statistic="mean"``, with an alpha of 0.01. The authors' own code takes the mean of the layers'
    means, of the weight matrices alone, and of the gradient of the loss *times its weight*, so that its
    weights settle near the root of the paper's; it renews them every ten steps. Departures: a gradient of
    zero, an absent task and a step without the reference leave weights where they are.

    Args:
        n_tasks: T.
        reference: index of the reference task.
        alpha: in (0, 1], the share of a new ratio.
        statistic: "max" or "mean", of the reference's elements.

    Raises ValueError for an argument out of range.
    """

    paper = "Wang, Teng, Perdikaris 2021, https://arxiv.org/abs/2001.04536"
    family = "gradient norm"
    space = {"alpha": (1e-3, 1.0, "log"), "statistic": [*_STATISTICS]}  # noqa: RUF012
    heads = "weighted"
    properties = frozenset({"linear_under_scaling"})

    w: Tensor

    def __init__(
        self, n_tasks: int, *, reference: int = 0, alpha: float = 0.1, statistic: str = "max"
    ) -> None:
        super().__init__(n_tasks)
        check_task(n_tasks, reference=reference)
        check_share(alpha=alpha)
        check_choice(_STATISTICS, statistic=statistic)
        self.reference, self.alpha, self.statistic = reference, alpha, statistic
        self.register_buffer("w", torch.ones(n_tasks))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P] and the weights [m]."""
        index = np.arange(self.n_tasks)[present]
        at = np.flatnonzero(index == self.reference)
        if len(at):
            means = _means(jacobian, self.sizes)
            reference = jacobian[at[0]].abs().max() if self.statistic == "max" else means[at[0]]
            moves = (means > 0) & torch.tensor(index != self.reference, device=means.device)
            ratio = reference.to(means) / torch.where(moves, means, 1.0)
            w = self.w[present].to(means)
            moved = torch.where(moves, (1 - self.alpha) * w + self.alpha * ratio, w)
            self.w[present] = moved.to(self.w)
        weights = self.w[present].to(jacobian, copy=True)  # the buffer itself goes back to what it was
        return weights @ jacobian, weights


def _means(jacobian: Tensor, sizes: list[int]) -> Tensor:
    """Mean absolute element of every row, float64 [m] on its device."""
    wide = blockwise.wide(jacobian.device)
    sums = [jacobian[:, columns].abs().sum(1, dtype=wide) for _, columns in blockwise.pieces(sizes)]
    return torch.stack(sums).sum(0) / jacobian.shape[1]
