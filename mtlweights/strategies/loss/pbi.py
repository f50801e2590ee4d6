"""Penalty-based boundary intersection (Zhang and Li 2007)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least, per_task, preference_vector


class PenaltyBoundaryIntersection(LossStrategy):
    """PBI: the distance along a preferred ray, plus a penalty for leaving it.

    ``L = d1 + theta d2`` with ``u = lambda / |lambda|``, ``d1 = (l - z) . u`` and
    ``d2 = |l - z - d1 u|``, lambda the preference and z the ideal point.

    Q. Zhang, H. Li, "MOEA/D: A Multiobjective Evolutionary Algorithm Based on Decomposition", IEEE
    Transactions on Evolutionary Computation 11(6), 2007, https://doi.org/10.1109/TEVC.2007.892759, for
    losses to be minimised (where d1 is the absolute value; it is signed here, so that a loss below z
    goes on being minimised).

    The weight of a loss that lies below the ray is negative: PBI trades it for a loss above. With tasks
    missing everything is over those present. At d2 = 0, where d2 has a kink, its gradient counts as 0.

    Args:
        n_tasks: T.
        theta: >= 0, the penalty (MOEA/D: 5).
        preference: lambda, T numbers >= 0; default 1/T each.
        ideal: z, T numbers or one for all.
    """

    paper = "Zhang and Li 2007, https://doi.org/10.1109/TEVC.2007.892759"
    family = "loss"
    space = {"theta": (0.1, 10.0, "log")}  # noqa: RUF012
    signed_weights = True
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor
    ideal: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        theta: float = 5.0,
        preference: Sequence[float] | None = None,
        ideal: float | Sequence[float] = 0.0,
    ) -> None:
        super().__init__(n_tasks)
        check_at_least(0, theta=theta)
        self.theta = theta
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1 / n_tasks).float())
        self.register_buffer("ideal", per_task("ideal", ideal, n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """``d1 + theta d2`` of ``losses`` [m]."""
        preference = self.preference[present].to(losses.dtype)
        size = torch.linalg.vector_norm(preference)
        unit = preference / torch.where(size > 0, size, 1.0)
        gap = losses - self.ideal[present]
        along = (gap * unit).sum()
        size = gap.detach().abs().max()  # out of the squares, for which float32 is short
        size = torch.where(size > 0, size, 1.0)
        across: Tensor = size * torch.linalg.vector_norm((gap - along * unit) / size)
        return along + self.theta * across
