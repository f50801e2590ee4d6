"""ReLoBRaLo, relative loss balancing with random lookback (Bischof and Kraus 2021)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, check_from_to
from .draws import uniform


class ReLoBRaLo(LossStrategy):
    """ReLoBRaLo: more weight to losses that fell less, since the last step or now and then since the first.

    With ``b_i(s) = T exp(l_i / (temperature l_i(s))) / sum_k exp(l_k / (temperature l_k(s)))`` and a draw z
    that is 1 with probability ``rho``, else 0, in every step

    ``w_i = alpha (z w_i + (1 - z) b_i(first)) + (1 - alpha) b_i(last)``

    from ``w_i = 1``, and the model descends ``sum_i w_i l_i``.

    R. Bischof, M. A. Kraus, "Multi-Objective Loss Balancing for Physics-Informed Deep Learning", Computer
    Methods in Applied Mechanics and Engineering 439, 2025, https://arxiv.org/abs/2110.09813; the defaults are
    those of the authors' published example. Other public code has 0.95, 0.99 and 1.

    The authors' released training sets alpha to 1 in its first step and to 0 in its second, which puts
    b(last) in place of all weights once; that is not in the paper, nor here. Departures: a draw is a function
    of (seed, committed step). An absent task keeps its weight and its losses, and T is the number of those
    present. A ratio to a loss of 0 counts as 1, as does a task's first. Negative losses, whose ratio grows as
    they fall, are refused.

    Args:
        n_tasks: T.
        alpha: in [0, 1], how much of the past is kept.
        rho: in [0, 1], the probability that it is that of the last step, and not of the first.
        temperature: > 0; the larger, the nearer to equal weights.

    Raises ValueError for a number out of range.
    """

    paper = "Bischof and Kraus 2021, https://arxiv.org/abs/2110.09813"
    family = "loss"
    space = {"alpha": (0.9, 0.9999), "temperature": (0.01, 10.0, "log")}  # noqa: RUF012
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    w: Tensor
    first: Tensor
    last: Tensor

    def __init__(
        self, n_tasks: int, *, alpha: float = 0.999, rho: float = 0.9999, temperature: float = 1.0
    ) -> None:
        super().__init__(n_tasks)
        check_from_to(0, 1, alpha=alpha, rho=rho)
        check_above(0, temperature=temperature)
        self.alpha, self.rho, self.temperature = alpha, rho, temperature
        self.register_buffer("w", torch.ones(n_tasks))
        for name in ("first", "last"):
            self.register_buffer(name, torch.full((n_tasks,), torch.nan))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m], whose weights they have just moved."""
        values = losses.detach().to(self.w)
        self.first[present] = torch.where(torch.isnan(self.first[present]), values, self.first[present])
        looks_back = uniform(self.seed, self.step, 1, losses.device) >= self.rho
        past = torch.where(looks_back, self._balance(values, self.first[present]), self.w[present])
        w = self.alpha * past + (1 - self.alpha) * self._balance(values, self.last[present])
        self.w[present], self.last[present] = w, values
        return (w * losses).sum()

    def _balance(self, values: Tensor, before: Tensor) -> Tensor:
        """b [m], which sum to m, from losses [m] and earlier ones, NaN where there was none."""
        known = before > 0
        ratio = torch.where(known, values / torch.where(known, before, 1.0), 1.0)
        largest = torch.finfo(ratio.dtype).max * min(self.temperature, 1.0)
        return len(values) * torch.softmax(ratio.clamp(max=largest) / self.temperature, 0)
