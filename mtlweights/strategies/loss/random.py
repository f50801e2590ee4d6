"""Random loss weighting (Lin et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from .draws import uniform


class RandomLossWeighting(LossStrategy):
    """RLW: the softmax of fresh normal draws at every step.

    ``w = softmax(e)``, ``e_i ~ N(0, 1)``, ``L = sum_i w_i l_i``; the weights sum to 1.

    B. Lin, F. Ye, Y. Zhang, I. W. Tsang, "Reasonable Effectiveness of Random Weighting: A Litmus
    Test for Multi-Task Learning", TMLR 2022, https://arxiv.org/abs/2111.10603 (there with other
    distributions too; the normal one is its default).

    Departures: a draw is a hash of (seed, committed step, task), so a repeated or resumed step
    draws the same weights. A task that is missing from the batch leaves the others' draws as they
    are; the softmax is over the tasks present.
    """

    paper = "Lin et al. 2022, https://arxiv.org/abs/2111.10603"
    family = "loss"
    space = {}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The randomly weighted sum of ``losses`` [m]."""
        cells = uniform(self.seed, self.step, self.n_tasks, losses.device)
        draws = math.sqrt(2) * torch.erfinv(2 * cells - 1)[present]
        return (torch.softmax(draws, 0) * losses).sum()
