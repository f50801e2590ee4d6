"""Soft optimal uncertainty weighting (Kirchdorfer et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above
from .positive import masked_softmax


class SoftOptimalUncertainty(LossStrategy):
    """UW-SO: the softmax of the inverse losses, the weights uncertainty weighting ends at.

    ``w = softmax((1 / l) / temperature)``, a constant in the step; ``L = sum_i w_i l_i``. The weights sum
    to 1. Without the softmax, ``w_i = 1 / l_i`` (UW-O), it is ``scale_invariant``.

    L. Kirchdorfer, C. Elich, S. Kutsche, H. Stuckenschmidt, L. Schott, J. M. Koehler, "Analytical
    Uncertainty-Based Loss Weighting in Multi-Task Learning", GCPR 2024,
    https://arxiv.org/abs/2408.07985. Not invariant to the scale of the losses: the authors tune the
    temperature for each data set.

    A loss of 0 is left out of its step, with weight 0; a negative one is refused.

    Args:
        n_tasks: T.
        temperature: > 0, in units of 1 / loss; the larger, the nearer to equal weights.
    """

    paper = "Kirchdorfer et al. 2024, https://arxiv.org/abs/2408.07985"
    family = "loss"
    space = {"temperature": (0.1, 100.0, "log")}  # noqa: RUF012
    scale_degree = None
    positive_losses = True
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, temperature: float = 1.0) -> None:
        super().__init__(n_tasks)
        check_above(0, temperature=temperature)
        self.temperature = temperature

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]."""
        values = losses.detach()
        positive = values > 0
        inverse = 1 / torch.where(positive, values, 1.0) / self.temperature
        weight = masked_softmax(inverse.clamp(max=torch.finfo(values.dtype).max), positive)
        return (weight * losses).sum()
