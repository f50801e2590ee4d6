"""Loss discrepancy control (Xiao et al. 2025)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least


class LossDiscrepancyControl(LossStrategy):
    """LDC-MTL: learned weights, and a penalty on what still differs between weighted losses.

    ``L = sum_i sigma_i l_i / S + penalty sum_i |sigma_i l_i - sigma_(i+1) l_(i+1)|`` with the learned
    ``sigma_i = sigmoid(phi_i)``, phi from 1, and ``S = sum_i sigma_i`` a constant in the step. Both terms
    train the model and phi. Sums are over the tasks present, neighbours being neighbours among those.

    P. Xiao, C. Dong, S. Zou, K. Ji, "LDC-MTL: Balancing Multi-Task Learning through Scalable Loss
    Discrepancy Control", 2025, https://arxiv.org/abs/2502.08585: a bilevel problem, weighted losses below
    and their discrepancy above, run as one penalised level. This is the form of the authors' CelebA
    experiment. Their Cityscapes one penalises ``|l_1 - l_2|``, their QM9 one takes ``log(l / l_initial)``
    for l. As in the authors' code phi is learned at 1e-3 (unless the Balancer's ``weight_lr`` says otherwise;
    theirs decays). Since S counts as a constant, the first term only ever lowers phi, by up to that rate in
    a step: after some thousands of steps sigma, and with it the penalty, has all but vanished, and what
    remains is the weighted mean of the losses. Losses may be negative.

    The second term makes a weight negative where ``2 penalty S > 1``, thus only with many tasks or a large
    penalty.

    Args:
        n_tasks: T.
        penalty: >= 0 (authors: 0.01 on CelebA, 0.05 on QM9, 0.1 on Cityscapes).
    """

    paper = "Xiao et al. 2025, https://arxiv.org/abs/2502.08585"
    family = "learned loss weights"
    space = {"penalty": (1e-3, 0.3, "log"), "weight_lr": (1e-5, 0.1, "log")}  # noqa: RUF012
    weight_lr = 1e-3
    signed_weights = True

    def __init__(self, n_tasks: int, *, penalty: float = 0.01) -> None:
        super().__init__(n_tasks)
        check_at_least(0, penalty=penalty)
        self.penalty = penalty
        self.phi = nn.Parameter(torch.ones(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The penalised objective, [], on ``losses`` [m]."""
        logs = functional.logsigmoid(self.phi[present])
        relative = torch.exp(logs - logs.detach().max())  # sigma / S is defined even where sigma underflows
        share = relative / relative.sum().detach()
        discrepancy = (torch.exp(logs) * losses).diff().abs().sum()
        return (share * losses).sum() + self.penalty * discrepancy
