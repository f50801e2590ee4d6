"""Fixed weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import numbers, shown


class FixedWeighting(LossStrategy):
    """Weights the user chose, the same at every step.

    ``L = sum_i alpha_i l_i``. The weights are used as given, not normalised. Tuned, this is linear
    scalarisation, which D. Xin et al., "Do Current Multi-Task Optimization Methods in Deep Learning
    Even Help?", 2022, https://arxiv.org/abs/2209.11379, find hard to beat.

    Args:
        n_tasks: T.
        alpha: T numbers >= 0; for two tasks also one number a in [0, 1], meaning
            ``a * l_0 + (1 - a) * l_1``. Default: all ones.

    Raises ValueError if ``alpha`` has another length, or a negative or non-finite entry.
    """

    paper = "Xin et al. 2022, https://arxiv.org/abs/2209.11379"
    family = "loss"
    space = {"alpha": ("ratios", 100.0)}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    alpha: Tensor

    def __init__(self, n_tasks: int, *, alpha: float | Sequence[float] | None = None) -> None:
        super().__init__(n_tasks)
        self.register_buffer("alpha", torch.tensor(_weights(alpha, n_tasks), dtype=torch.float32))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]."""
        alpha = self.alpha[present]
        return (alpha * losses).sum()


def _weights(alpha: float | Sequence[float] | None, n_tasks: int) -> list[float]:
    if alpha is None:
        return [1.0] * n_tasks
    values = numbers("alpha", alpha)
    if not (values >= 0).all():
        raise ValueError(f"alpha should hold numbers of at least 0, found {shown(alpha)}.")
    if values.ndim == 0 and n_tasks == 2:
        if values > 1:
            raise ValueError(f"A single alpha should be between 0 and 1, found {shown(alpha)}.")
        values = np.stack([values, 1 - values])
    if values.shape != (n_tasks,):
        found = "one number" if values.ndim == 0 else f"{values.size}: {shown(alpha)}"
        raise ValueError(f"alpha should have {n_tasks} numbers, one per task, found {found}.")
    return [float(value) for value in values]
