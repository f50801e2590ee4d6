"""Dynamic weight average (Liu et al. 2019)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above


class DynamicWeightAverage(LossStrategy):
    """DWA: more weight to tasks whose loss fell less over the last two epochs.

    ``w_i = T exp(r_i / temperature) / sum_k exp(r_k / temperature)`` with
    ``r_i = L_i(t-1) / L_i(t-2)``, L(t) being the mean training loss of epoch t; all ones in the
    first two epochs. The weights sum to T.

    S. Liu, E. Johns, A. J. Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    https://arxiv.org/abs/1803.10704, equation 7. Some public code updates every 25 iterations from
    buffers that start at one; here it is once an epoch, as in the paper.

    Departures, for what the paper leaves open: a task not seen in an epoch keeps its two last
    means; ``r_i = 1`` until there are two, and where L_i(t-2) is zero. A negative loss, whose
    ratio grows as the loss falls, is refused.

    Args:
        n_tasks: T.
        temperature: > 0; the larger, the nearer to equal weights (paper: 2).
    """

    paper = "Liu, Johns, Davison 2019, https://arxiv.org/abs/1803.10704"
    family = "loss"
    space = {"temperature": (0.5, 8.0, "log")}  # noqa: RUF012
    needs = ("end_epoch",)
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    last: Tensor
    before_last: Tensor
    weight: Tensor

    def __init__(self, n_tasks: int, *, temperature: float = 2.0) -> None:
        super().__init__(n_tasks)
        check_above(0, temperature=temperature)
        self.temperature = temperature
        self.register_buffer("last", torch.full((n_tasks,), float("nan")))
        self.register_buffer("before_last", torch.full((n_tasks,), float("nan")))
        self.register_buffer("weight", torch.ones(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]."""
        weight = self.weight[present]
        return (weight * losses).sum()

    @torch.no_grad()
    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Takes the epoch's ``mean_losses`` [T] and sets the next epoch's weights."""
        mean = torch.as_tensor(mean_losses).to(self.last)
        seen = torch.isfinite(mean)
        self.before_last.copy_(torch.where(seen, self.last, self.before_last))
        self.last.copy_(torch.where(seen, mean, self.last))
        ratio = self.last / self.before_last
        ratio = torch.where(torch.isfinite(ratio), ratio, torch.ones_like(ratio))
        self.weight.copy_(self.n_tasks * torch.softmax(ratio / self.temperature, 0))
