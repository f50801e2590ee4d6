"""The loss half of impartial multi-task learning (Liu et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base import ALL, Index, LossStrategy
from .positive import bound, usable


class ImpartialLosses(LossStrategy):
    """IMTL-L: learned scales that bring all losses to 1.

    ``L = sum_i exp(s_i) l_i - s_i`` with the learned s_i, from 0; at the optimum ``s_i = -log l_i`` and the
    weight is ``1 / l_i``.

    L. Liu et al., "Towards Impartial Multi-task Learning", ICLR 2021,
    https://openreview.net/forum?id=IMPnRXEWpvr, its loss balance. With ``-s_i`` for s_i it is uncertainty
    weighting in the form ``exp(-s) l + s``, twice the regression form of ``uw``. As there, and for its
    reasons, s is learned at 3e-4 a step by default.

    A loss of 0 is left out of its step, with weight 0: its s_i would grow without end. A negative one, at
    which the objective has no minimum, is refused. s stays within -80 and 80, far from where exp overflows.
    """

    paper = "Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr"
    family = "learned loss weights"
    space = {"weight_lr": (1e-5, 0.1, "log")}  # noqa: RUF012
    scale_degree = None  # s adapts to the scale of the losses
    weight_lr = 3e-4
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.log_scale = nn.Parameter(torch.zeros(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The paper's objective, [], on ``losses`` [m]."""
        s: Tensor = self.log_scale
        s = s[present]
        return torch.where(usable(losses), torch.exp(s) * losses - s, 0.0).sum()

    @torch.no_grad()
    def project(self, moved: Tensor) -> None:
        """Keeps the s that ``moved`` within their bound."""
        bound(self.log_scale, moved)
