"""Group DRO, distributionally robust optimisation over the tasks (Sagawa et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, check_switch


class GroupDRO(LossStrategy):
    """Group DRO: the tasks' weights climb towards the worst task while the model descends.

    In every step ``q_i`` is multiplied by ``exp(eta l_i)`` and q is rescaled to sum to 1; then the model
    descends ``sum_i q_i l_i``. This is online mirror ascent on the largest of the losses.

    S. Sagawa, P. W. Koh, T. B. Hashimoto, P. Liang, "Distributionally Robust Neural Networks for Group
    Shifts", ICLR 2020, https://arxiv.org/abs/1911.08731, algorithm 1, with tasks as groups. The weights of
    the domains in DoReMi (S. M. Xie et al., NeurIPS 2023, https://arxiv.org/abs/2305.10429) follow the same
    rule, with a loss less that of a reference model, and are mixed with equal ones.

    The losses are compared as they are, so they should have one unit; ``normalise`` divides them by their
    sum, as ``normalize_loss`` of the authors' code, which needs losses of at least 0. The paper's adjustment
    for small groups, ``C / sqrt(n_i)`` on top of each loss, is left to the caller. q is kept as a logarithm,
    so that none is lost to rounding. Departure: the tasks present share what they had together, and are
    rescaled to sum to 1 in their step; the absent ones keep theirs, where the authors' code takes their loss
    as 0.

    Args:
        n_tasks: T.
        eta: > 0, step size of q (authors: 0.01).
        normalise: divide the losses by their sum before q moves.

    Raises ValueError for an argument out of range.
    """

    paper = "Sagawa et al. 2020, https://arxiv.org/abs/1911.08731"
    family = "loss"
    space = {"eta": (1e-3, 1.0, "log")}  # noqa: RUF012
    scale_degree = None
    properties = frozenset({"permutation_equivariant"})

    log_q: Tensor

    def __init__(self, n_tasks: int, *, eta: float = 0.01, normalise: bool = False) -> None:
        super().__init__(n_tasks)
        check_above(0, eta=eta)
        check_switch(normalise=normalise)
        self.eta, self.normalise = eta, normalise
        if normalise:
            self.positive_losses, self.scale_degree = True, 1
        self.register_buffer("log_q", torch.zeros(n_tasks) - torch.tensor(float(n_tasks)).log())

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m], whose weights they have just moved."""
        values = losses.detach()
        if self.normalise:
            total = values.sum()
            values = torch.where(total > 0, values / torch.where(total > 0, total, 1.0), 0.0)
        before = self.log_q[present]
        moved = before + self.eta * values.to(before)
        share = torch.log_softmax(moved, 0)
        self.log_q[present] = share + torch.logsumexp(before, 0)
        return (share.exp() * losses).sum()
