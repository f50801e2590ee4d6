"""MoDo, multi-objective gradient with double sampling (Chen et al. 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above, check_at_least
from ..solvers import project_simplex


class MoDo(GramStrategy):
    """MoDo: MGDA's weights by projected gradient descent, one step of it per training step.

    With the gradients J_1, J_2, J_3 [T, P] of three independent batches,

    ``lambda <- P(lambda - gamma (J_1 J_2' lambda + rho lambda))``, then ``d = J_3' lambda``,

    P the projection on the simplex. Two batches make ``J_1 J_2' lambda`` an unbiased estimate of the
    gradient of ``|J' lambda|^2 / 2``, which one batch does not; a third keeps lambda independent of the
    gradients that it weighs. The step takes the *new* lambda.

    L. Chen, H. Fernando, Y. Ying, T. Chen, "Three-Way Trade-Off in Multi-Objective Learning: Optimization,
    Generalization and Conflict-Avoidance", NeurIPS 2023, https://arxiv.org/abs/2305.20057, the algorithm
    with three samples. The authors' code has a form with two, which steps along the sum of both batches.

    One optimizer step takes three backwards, each of its own micro-batch and T passes, with the factor 1/3
    of any accumulation. Heads get the mean of the three plain gradients. Not scale free: losses times c act
    as gamma times ``c^2``; the paper does not normalise, so scale gamma with the inverse of the squared
    gradient norms.

    Departure, for what the paper leaves open: with tasks missing, the rule runs on the shares that the
    tasks present have among themselves, and what they have in all stays.

    Args:
        n_tasks: T.
        gamma: > 0, step size of lambda (authors' code: 0.1).
        rho: >= 0, pull towards equal weights (authors' code: 0.1).

    Raises ValueError for numbers out of range.
    """

    paper = "Chen et al. 2023, https://arxiv.org/abs/2305.20057"
    family = "gramian"
    space = {"gamma": (1e-4, 1.0, "log"), "rho": (0.0, 1.0)}  # noqa: RUF012
    batches = 3
    properties = frozenset({"permutation_equivariant"})
    scale_degree = None

    share: Tensor  #: lambda [T]

    def __init__(self, n_tasks: int, *, gamma: float = 0.1, rho: float = 0.1) -> None:
        super().__init__(n_tasks)
        check_above(0, gamma=gamma)
        check_at_least(0, rho=rho)
        self.gamma, self.rho = gamma, rho
        self.register_buffer("share", torch.full((n_tasks,), 1 / n_tasks, dtype=torch.float64))

    def weights(
        self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trunk and heads, [3m] each, from ``gram`` [3m, 3m]; lambda, on the last m, sums to 1."""
        m, stored = len(present), self.share.numpy()
        total, share = among_present(stored[present])
        share = project_simplex(share - self.gamma * (gram[:m, m : 2 * m] @ share + self.rho * share))
        stored[present] = total * share
        return on_third_batch(share)


def among_present(stored: np.ndarray) -> tuple[float, np.ndarray]:
    """What the tasks present have of the simplex in all, and the shares [m] of it; equal if it is none."""
    total = float(stored.sum())
    return total, stored / total if total > 0 else np.full(len(stored), 1 / len(stored))


def on_third_batch(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trunk and heads [3m]: ``weights`` [m] on the third batch, and the mean over all three."""
    none = np.zeros(2 * len(weights))
    return np.concatenate([none, weights]), np.full(3 * len(weights), 1 / 3)
