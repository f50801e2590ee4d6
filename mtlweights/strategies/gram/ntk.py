"""Neural-tangent-kernel weights of physics-informed networks (Wang, Yu, Perdikaris 2022)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy


class NTK(GramStrategy):
    """NTK weights: tasks whose residuals hardly move get more weight, so that all fall at one rate.

    ``w_i = sum_k t_k / t_i`` with ``t_i = |grad sqrt(l_i)|^2 = G_ii / (4 l_i)``, and the model descends
    ``sum_i w_i l_i``.

    S. Wang, X. Yu, P. Perdikaris, "When and why PINNs fail to train: A neural tangent kernel
    perspective", Journal of Computational Physics 449, 2022, https://arxiv.org/abs/2007.14527, algorithm 1.

    There t_i is the trace of the task's own kernel: the squared norms of the gradients of *every* residual,
    added up, which takes a backward pass per point. For a mean of squares, the t_i here is the kernel's mean
    along the residuals at hand, over their number: at most the trace over that number, and the one thing that
    a single gradient per task tells of it. So tasks are compared per point: their numbers of points cancel,
    as they do where all have as many. The paper renews the weights once in many steps:
    ``Balancer(every=...)``.

    Departures: a task whose loss or gradient is 0 has weight 0 and is left out of the sum. A negative loss,
    which is no mean of squares, is refused."""

    paper = "Wang, Yu, Perdikaris 2022, https://arxiv.org/abs/2007.14527"
    family = "gradient norm"
    space = {}  # noqa: RUF012
    heads = "weighted"
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m]: 0, or at least 1."""
        squared = np.diagonal(gram)
        moving = (losses > 0) & (squared > 0)
        rates = np.where(moving, squared, 0.0) / np.where(moving, 4 * losses, 1.0)
        return np.divide(rates.sum(), rates, out=np.zeros_like(rates), where=rates > 0)
