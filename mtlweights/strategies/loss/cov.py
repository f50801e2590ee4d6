"""Coefficient-of-variation weighting (Groenendijk et al. 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy

#: The largest ratio of a loss to its mean, for float32's sake: its square is summed.
LARGEST = 1e15


class CoefficientOfVariation(LossStrategy):
    """CoV: more weight to tasks whose loss varies more, relative to its mean.

    At a task's step t, with the loss ratio ``rho_i(t) = l_i(t) / mean(l_i(1..t-1))``, the weight is
    ``w_i = c_i / sum_k c_k``, ``c_i = std(rho_i) / mean(rho_i)`` over steps 1 to t-1, and ``1/T`` in the
    first two. The weights sum to 1. Standard deviations are of the population, by Welford's method.

    R. Groenendijk, S. Karaoglu, T. Gevers, T. Mensink, "Multi-Loss Weighting with Coefficient of
    Variations", WACV 2021, https://arxiv.org/abs/2009.01717; ``rho_i(1) = 1`` as in the authors' code.
    That code also adds 1e-8 to the variance, and offers decayed means beside an undecayed sum of
    squares, which has no consistent reading; both are left out.

    A task counts its own steps. One with fewer than two has weight 1/T and the others share the rest;
    where no loss varied the shares are equal. rho_i counts as 1 where the mean is 0. A
    negative loss, whose ratio grows as the loss falls, is refused.
    """

    paper = "Groenendijk et al. 2021, https://arxiv.org/abs/2009.01717"
    family = "loss"
    space = {}  # noqa: RUF012
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    count: Tensor
    mean_loss: Tensor
    mean_ratio: Tensor
    squares: Tensor  # sum of the squared deviations of rho from its mean

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        for name in ("count", "mean_loss", "mean_ratio", "squares"):
            self.register_buffer(name, torch.zeros(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]; then takes them into the statistics."""
        weight = self._weights()[present]
        self._take(losses.detach().to(self.mean_loss), present)
        return (weight * losses).sum()

    def _weights(self) -> Tensor:
        known = self.count >= 2
        variance = self.squares / self.count.clamp(min=1)
        positive = known & (self.mean_ratio > 0)
        variation = torch.where(positive, variance.sqrt() / torch.where(positive, self.mean_ratio, 1.0), 0.0)
        total = variation.sum()
        share = torch.where(total > 0, variation / torch.where(total > 0, total, 1.0), known / known.sum())
        return torch.where(known, share * known.sum() / self.n_tasks, 1 / self.n_tasks)

    def _take(self, values: Tensor, present: Index) -> None:
        mean_loss, mean_ratio = self.mean_loss[present], self.mean_ratio[present]
        count = self.count[present] + 1
        known = (count > 1) & (mean_loss > 0)
        ratio = torch.where(known, values / torch.where(known, mean_loss, 1.0), 1.0).clamp(max=LARGEST)
        new_mean = mean_ratio + (ratio - mean_ratio) / count
        self.squares[present] += (ratio - mean_ratio) * (ratio - new_mean)
        self.mean_ratio[present] = new_mean
        self.mean_loss[present] = mean_loss + (values - mean_loss) / count
        self.count[present] = count
