"""SoftAdapt (Heydari, Thompson, Mehmood 2019)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import INF, check_at_least, check_choice, check_fraction, check_switch
from .positive import masked_softmax, positive_logs, usable

_RATES = ("difference", "normalised", "ratio")


class SoftAdapt(LossStrategy):
    """SoftAdapt: a softmax of the losses' last changes, more weight to those that fall least.

    ``w = softmax(beta s)``, which sums to 1, with the rate s_i, by ``rate``:

    - "difference": ``s_i = l_i - l_i(last)``, the paper's;
    - "normalised": the same over ``sum_k |l_k - l_k(last)|``, the paper's variant in which no unit matters;
    - "ratio": ``s_i = l_i / l_i(last)``, PhysicsNeMo's, there with beta = 1 and weights that sum to T.

    With ``loss_weighted``, the paper's third variant, ``w_i`` is proportional to ``l_i exp(beta s_i)``. With
    ``alpha`` above 0 the weights are a moving average, ``w = alpha w + (1 - alpha) softmax(beta s)``, from
    equal ones: SoftAdapt in the comparison of ReLoBRaLo's authors.

    A. A. Heydari, C. A. Thompson, A. Mehmood, "SoftAdapt: Techniques for Adaptive Loss Weighting of Neural
    Networks with Multi-Part Loss Functions", 2019, https://arxiv.org/abs/1912.12355, section 3.1.

    The rates are those of one optimizer step. The authors' package leaves it to the loop when to renew the
    weights, and takes a finite difference of higher order over the losses in between. It normalises by the
    *signed* sum, so that while all losses fall the weights go to the one that falls fastest; their first
    code, as the paper, has absolute values. Departures: a task's first rate is 0 (ratio: 1), as is any ratio
    to a loss of 0; an absent task's loss and weight wait. Negative losses are refused with "ratio" and
    ``loss_weighted``.

    Args:
        n_tasks: T.
        beta: > 0 favours the losses that fall least, < 0 those that fall most (authors: 0.1).
        rate: "difference", "normalised" or "ratio".
        loss_weighted: multiply the exponentials by the losses.
        alpha: in [0, 1), how much of the old weights is kept.

    Raises ValueError for an argument out of range.
    """

    paper = "Heydari et al. 2019, https://arxiv.org/abs/1912.12355"
    family = "loss"
    space = {"beta": (0.01, 10.0, "log"), "rate": [*_RATES]}  # noqa: RUF012
    scale_degree = None
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    w: Tensor
    last: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        beta: float = 0.1,
        rate: str = "difference",
        loss_weighted: bool = False,
        alpha: float = 0.0,
    ) -> None:
        super().__init__(n_tasks)
        check_at_least(-INF, beta=beta)
        check_choice(_RATES, rate=rate)
        check_switch(loss_weighted=loss_weighted)
        check_fraction(alpha=alpha)
        self.beta, self.rate, self.loss_weighted, self.alpha = beta, rate, loss_weighted, alpha
        self.scale_degree = None if rate == "difference" else 1
        self.positive_losses = rate == "ratio" or loss_weighted
        self.register_buffer("w", torch.ones(n_tasks))
        self.register_buffer("last", torch.full((n_tasks,), torch.nan))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m], whose weights they have just moved."""
        values = losses.detach().to(self.w)
        logits = self.beta * self._rates(values, self.last[present])
        mask = usable(values) if self.loss_weighted else torch.ones_like(values, dtype=torch.bool)
        shares = masked_softmax(logits + positive_logs(values) if self.loss_weighted else logits, mask)
        w = self.alpha * self.w[present] + (1 - self.alpha) * len(values) * shares
        self.w[present], self.last[present] = w, values
        return (w * losses).sum() / len(values)

    def _rates(self, values: Tensor, last: Tensor) -> Tensor:
        """s [m], from losses [m] and the last ones [m], NaN where there was none."""
        if self.rate == "ratio":
            known = last > 0
            return torch.where(known, values / torch.where(known, last, 1.0), 1.0).clamp(max=1e30)
        change = torch.where(torch.isnan(last), 0.0, values - last)
        if self.rate == "difference":
            return change
        total = change.abs().sum()
        return change / torch.where(total > 0, total, 1.0)
