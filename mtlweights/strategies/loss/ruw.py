"""Revised uncertainty weighting (Liebel and Koerner 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base import ALL, Index, LossStrategy

#: The least |sigma|; at the optimum it belongs to a loss of about 2e-12.
FLOOR = 1e-3


class RevisedUncertainty(LossStrategy):
    """RUW: uncertainty weighting with a regulariser that keeps the objective positive.

    ``L = sum_i l_i / (2 sigma_i^2) + log(1 + sigma_i^2)`` with the learned sigma_i itself, from 1. Also
    registered as ``awl``.

    L. Liebel, M. Koerner, "Auxiliary Tasks in Multi-task Learning", 2018,
    https://arxiv.org/abs/1805.06334. For a fixed loss the optimum q = sigma^2 solves
    ``q^2 - l q / 2 - l / 2 = 0``; unlike UW's it depends on the scale of the losses.

    sigma is learned at 3e-4 a step by default, for the reasons that ``uw`` gives.

    Departures: sigma may change sign, as in public code, but not come nearer to 0 than 0.001, where the
    weight would explode. A loss of 0 is left out of its step, with weight 0: its sigma would fall to 0.
    A negative one is refused.
    """

    paper = "Liebel and Koerner 2018, https://arxiv.org/abs/1805.06334"
    family = "learned loss weights"
    space = {"weight_lr": (1e-5, 0.1, "log")}  # noqa: RUF012
    scale_degree = None
    weight_lr = 3e-4
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.sigma = nn.Parameter(torch.ones(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The paper's objective, [], on ``losses`` [m]."""
        sigma: Tensor = self.sigma
        variance = (sigma[present]) ** 2
        terms = losses / (2 * variance) + torch.log1p(variance)
        return torch.where(losses > 0, terms, 0.0).sum()

    @torch.no_grad()
    def project(self, moved: Tensor) -> None:
        """Keeps the sigmas that ``moved`` away from 0."""
        away = torch.where(self.sigma < 0, -1.0, 1.0) * self.sigma.abs().clamp(min=FLOOR)
        self.sigma.copy_(torch.where(moved, away, self.sigma))
