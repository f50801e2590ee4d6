"""Uncertainty weighting (Kendall et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least, shown
from .positive import bound, usable

#: factor of exp(-s) * l
_FACTORS = {"regression": 0.5, "classification": 1.0}


class UncertaintyWeighting(LossStrategy):
    """Learned weights from each task's homoscedastic uncertainty.

    ``L = sum_i f_i exp(-s_i) l_i + s_i / 2`` with the learned ``s_i = log(sigma_i^2)`` and

    - ``f_i = 1/2`` in the regression form, ``l / (2 sigma^2) + log(sigma)``;
    - ``f_i = 1`` in the classification form, ``l / sigma^2 + log(sigma)``.

    A. Kendall, Y. Gal, R. Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for Scene
    Geometry and Semantics", CVPR 2018, https://arxiv.org/abs/1705.07115, equations 7 and 10.

    At the optimum in s the weight ``f_i exp(-s_i)`` is ``1 / (2 l_i)`` in either form: the form
    moves the optimum of s by log 2 and changes where s starts from. Public code uses one form for
    all tasks: the regression form is the commonest (at times written ``(exp(-s) l + s) / 2``, the
    same thing); ``exp(-s) l + s`` is twice the regression form; ``exp(-s) l + s / 2`` is the
    classification form. L is negative for small losses, which is normal.

    s is learned at 3e-4 a step, unless the Balancer's ``weight_lr`` says otherwise: of the rates tried the
    largest that did no harm on any problem (docs/disagreements.md has the figures). Where the losses' scales
    lie far apart, or training is short, a larger one, up to 0.025, may pay.

    A loss that is 0 or negative takes no part in s, which would fall without end: L has no minimum there.
    Its weight stays what it is. s stays within -80 and 80, far from where exp overflows.

    Args:
        n_tasks: T.
        forms: "regression" (the default, for every task), "classification", or one of them per task.
        init: where every s_i starts; 0 is sigma = 1.

    Raises ValueError for an unknown form, another number of forms than T, a non-finite ``init``.
    """

    paper = "Kendall et al. 2018, https://arxiv.org/abs/1705.07115"
    family = "learned loss weights"
    space = {"init": (-2.0, 2.0), "weight_lr": (1e-5, 0.1, "log")}  # noqa: RUF012
    scale_degree = None  # s adapts to the scale of the losses
    weight_lr = 3e-4
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    factor: Tensor

    def __init__(self, n_tasks: int, *, forms: str | Sequence[str] = "regression", init: float = 0.0) -> None:
        super().__init__(n_tasks)
        check_at_least(-math.inf, init=init)
        self.log_variance = nn.Parameter(torch.full((n_tasks,), float(init)))
        self.register_buffer("factor", torch.tensor(_factors(forms, n_tasks)))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The paper's objective, [], on ``losses`` [m]."""
        s: Tensor = self.log_variance
        factor = self.factor
        s, factor = s[present], factor[present]
        s = torch.where(usable(losses), s, s.detach())
        return (factor * torch.exp(-s) * losses + torch.where(usable(losses), s / 2, 0.0)).sum()

    @torch.no_grad()
    def project(self, moved: Tensor) -> None:
        """Keeps the s that ``moved`` within their bound."""
        bound(self.log_variance, moved)


def _factors(forms: str | Sequence[str], n_tasks: int) -> list[float]:
    per_task = [forms] * n_tasks if isinstance(forms, str) else forms
    if not isinstance(per_task, Sequence) or len(per_task) != n_tasks:
        raise ValueError(f"forms should be one form or {n_tasks}, one per task, found {shown(forms)}.")
    unknown = [form for form in per_task if not (isinstance(form, str) and form in _FACTORS)]
    if unknown:
        raise ValueError(f"forms should be 'regression' or 'classification', found {shown(unknown[0])}.")
    return [_FACTORS[form] for form in per_task]
