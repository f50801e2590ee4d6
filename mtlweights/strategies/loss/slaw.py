"""Scaled loss approximate weighting (Crawshaw and Kosecka 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_share

#: The least standard deviation, as a share of the root mean square loss.
FLOOR = 1e-5


class ScaledLossApproximateWeighting(LossStrategy):
    """SLAW: the inverse of each loss's running standard deviation, a proxy of its gradient's norm.

    ``w_i = T (1 / s_i) / sum_k (1 / s_k)`` with ``s_i`` the standard deviation of l_i over an
    exponential moving average that takes a share ``rate`` of each new loss; the arithmetic mean until
    there are ``1 / rate`` losses. The step's own loss is included. The weights sum to T.

    M. Crawshaw, J. Kosecka, "SLAW: Scaled Loss Approximate Weighting for Efficient Multi-Task Learning",
    2021, https://arxiv.org/abs/2109.08218. The formula ``sqrt(E[l^2] - E[l]^2)`` loses all digits where
    the loss hardly varies; the same number comes here from the recursion for a moving variance.

    Departures: s_i is floored at 1e-5 of the root mean square loss, where the authors' code has an
    absolute 1e-5. A task seen once, or whose losses were all 0, has weight 1 and the others share the
    rest.

    Args:
        n_tasks: T.
        rate: in (0, 1], the share of a new loss (authors: 0.01).
    """

    paper = "Crawshaw and Kosecka 2021, https://arxiv.org/abs/2109.08218"
    family = "loss"
    space = {"rate": (1e-3, 0.3, "log")}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    count: Tensor
    mean: Tensor
    variance: Tensor

    def __init__(self, n_tasks: int, *, rate: float = 0.01) -> None:
        super().__init__(n_tasks)
        check_share(rate=rate)
        self.rate = rate
        for name in ("count", "mean", "variance"):
            self.register_buffer(name, torch.zeros(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m], which first join the statistics."""
        self._take(losses.detach().to(self.mean), present)
        floor = FLOOR * (self.variance + self.mean**2).sqrt()
        deviation = torch.maximum(self.variance.sqrt(), floor)
        known = (self.count >= 2) & (deviation > 0)
        inverse = torch.where(known, 1 / torch.where(known, deviation, 1.0), 0.0)
        share = known.sum() * inverse / torch.where(known.any(), inverse.sum(), 1.0)
        return (torch.where(known, share, 1.0)[present] * losses).sum()

    def _take(self, values: Tensor, present: Index) -> None:
        count, mean = self.count[present] + 1, self.mean[present]
        rate = (1 / count).clamp(min=self.rate)
        self.variance[present] = (1 - rate) * (self.variance[present] + rate * (values - mean) ** 2)
        self.mean[present] = mean + rate * (values - mean)
        self.count[present] = count
