"""Gradient-norm weighting of physics-informed networks (Wang et al. 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_fraction
from ..solvers import equal_norms


class NormBalance(GramStrategy):
    """Gradient-norm weighting: every weighted loss pulls with the norm of all gradients together.

    With ``v_i = sum_k |g_k| / |g_i|``, ``w_i = decay w_i + (1 - decay) v_i`` from ``w_i = 1``, and the model
    descends ``sum_i w_i l_i``.

    S. Wang, S. Sankaran, H. Wang, P. Perdikaris, "An Expert's Guide to Training Physics-informed Neural
    Networks", 2023, https://arxiv.org/abs/2308.08468, section 4 and algorithm 1.

    The paper renews the weights every 1,000 steps: ``Balancer("norm_balance", ..., every=1000)``, which also
    saves the passes in between. The authors' code takes the mean of the norms, which is the sum over T, and
    adds 1e-5 of it to each. Departures: a gradient of zero leaves its weight where it is; an absent task's
    waits, and the sum is over those present.

    Args:
        n_tasks: T.
        decay: in [0, 1), how much of the old weight is kept (paper: 0.9).

    Raises ValueError for a decay out of range.
    """

    paper = "Wang et al. 2023, https://arxiv.org/abs/2308.08468"
    family = "gradient norm"
    space = {"decay": (0.0, 0.99)}  # noqa: RUF012
    heads = "weighted"
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    w: Tensor

    def __init__(self, n_tasks: int, *, decay: float = 0.9) -> None:
        super().__init__(n_tasks)
        check_fraction(decay=decay)
        self.decay = decay
        self.register_buffer("w", torch.ones(n_tasks, dtype=torch.float64))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], positive; moves those of the tasks present."""
        w, norms = self.w.numpy(), np.sqrt(np.diagonal(gram))
        moved = self.decay * w[present] + (1 - self.decay) * equal_norms(norms, norms.sum())
        w[present] = np.where(norms > 0, moved, w[present])
        return w[present]
