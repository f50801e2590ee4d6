"""Geometric loss strategy (Chennupati et al. 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from .positive import positive_logs, usable


class GeometricLoss(LossStrategy):
    """GLS: the geometric mean of the losses.

    ``L = (prod_i l_i)^(1/m)`` over the m tasks present, so each task's weight is ``L / (m l_i)``: all
    contribute alike, ``w_i l_i = L / m``. Computed as the exponential of the mean log, since the
    product of many small losses underflows. Also registered as ``gls``.

    S. Chennupati, G. Sistu, S. Yogamani, S. A. Rawashdeh, "MultiNet++: Multi-Stream Feature Aggregation
    and Geometric Loss Strategy for Multi-Task Learning", CVPR Workshops 2019,
    https://arxiv.org/abs/1904.08492.

    A loss of 0 is left out of the mean, with weight 0: in the formula a single zero would end all
    training. A negative one is refused.
    """

    paper = "Chennupati et al. 2019, https://arxiv.org/abs/1904.08492"
    family = "loss"
    space = {}  # noqa: RUF012
    positive_losses = True
    properties = frozenset({"permutation_equivariant"})

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The geometric mean of ``losses`` [m]; 0 if none is positive."""
        count = usable(losses).sum()
        mean = torch.exp(positive_logs(losses).sum() / count.clamp(min=1))
        return torch.where(count > 0, mean, 0.0)
