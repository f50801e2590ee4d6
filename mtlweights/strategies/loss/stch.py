"""Smooth Tchebycheff scalarisation (Lin et al. 2024), as in the paper."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, per_task, preference_vector


class SmoothTchebycheff(LossStrategy):
    """STCH: a smooth maximum of the preference-weighted losses.

    ``L = mu log sum_i exp(lambda_i (l_i - z_i) / mu)``, so the weight is
    ``lambda_i softmax(lambda (l - z) / mu)_i``; L lies between the largest ``lambda_i (l_i - z_i)`` and
    that plus ``mu log T``.

    X. Lin, X. Zhang, Z. Yang, F. Liu, Z. Wang, Q. Zhang, "Smooth Tchebycheff Scalarization for
    Multi-Objective Optimization", ICML 2024, https://arxiv.org/abs/2402.19078. The code the authors used
    for multi-task networks is another formula: ``stch_mtl``. This one depends on the scale of the losses.

    With tasks missing the sum is over those present, with their own lambda. Losses may be negative.

    Args:
        n_tasks: T.
        mu: > 0, in units of ``lambda l``; towards 0 only the largest term counts.
        preference: lambda, T numbers >= 0, used as given; default 1/T each.
        ideal: z, T numbers or one for all, a value that no loss goes below.
    """

    paper = "Lin et al. 2024, https://arxiv.org/abs/2402.19078"
    family = "loss"
    space = {"mu": (0.01, 10.0, "log")}  # noqa: RUF012
    scale_degree = None
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor
    ideal: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        mu: float = 1.0,
        preference: Sequence[float] | None = None,
        ideal: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__(n_tasks)
        check_above(0, mu=mu)
        self.mu = mu
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1 / n_tasks).float())
        self.register_buffer("ideal", per_task("ideal", ideal, n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The smooth maximum of ``losses`` [m]."""
        terms = self.preference[present] * (losses - self.ideal[present])
        largest = terms.detach().max()  # taken out before mu divides, which may overflow
        return largest + self.mu * torch.logsumexp((terms - largest) / self.mu, 0)
