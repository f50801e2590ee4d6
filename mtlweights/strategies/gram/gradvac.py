"""Gradient Vaccine (Wang et al. 2021)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_share
from ..solvers import cosines_and_norms
from .pcgrad import random_orders

#: The correction grows without bound as its target nears 1.
_CEILING = 1 - 1e-6


class GradVac(GramStrategy):
    """Gradient Vaccine: gradients are pulled to the cosines they usually have.

    For every i, starting from ``p_i = g_i``, for every ``j != i`` in random order: with phi the cosine
    of p_i and g_j and phi^ its moving average for this pair, where ``phi < phi^``,

    ``p_i += |p_i| (phi^ sqrt(1 - phi^2) - phi sqrt(1 - phi^^2)) / (|g_j| sqrt(1 - phi^^2)) g_j``,

    after which their cosine is phi^; then ``phi^ = (1 - beta) phi^ + beta phi``. The direction is
    ``sum_i p_i``. phi^ starts at 0, so the first step is PCGrad's.

    Z. Wang, Y. Tsvetkov, O. Firat, Y. Cao, "Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models", ICLR 2021, https://arxiv.org/abs/2010.05874,
    equations 2 and 3, algorithm 1.

    All of it is done on the Gramian, over all i at once. The granularity is the whole shared
    gradient. Public code has beta = 0.5; one version updates phi^ only where it corrects. Departures:
    orders are a function of (seed, committed step); targets above 1 - 1e-6 count as that; a pair with
    a vector that is zero, or zero up to rounding after corrections, has no cosine and is passed over.

    Args:
        n_tasks: T.
        beta: in (0, 1], how fast the averages follow.
    """

    paper = "Wang et al. 2021, https://arxiv.org/abs/2010.05874"
    family = "gramian"
    space = {"beta": (1e-3, 1.0, "log")}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    target: Tensor

    def __init__(self, n_tasks: int, *, beta: float = 0.01) -> None:
        super().__init__(n_tasks)
        check_share(beta=beta)
        self.beta = beta
        self.register_buffer("target", torch.zeros(n_tasks, n_tasks, dtype=torch.float64))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 1; moves the averages of the tasks present."""
        cosines, norm = cosines_and_norms(gram)
        m, i, stored = len(gram), np.arange(len(gram)), self.target.numpy()
        pairs = np.ix_(present, present)
        phi_hat, added, size = stored[pairs], np.zeros((m, m)), norm.copy()
        # all i at once; with u_j = g_j / |g_j| throughout p_i = g_i + sum_j added[i, j] u_j,
        # along[i, j] = p_i . u_j and size[i] = |p_i|
        along = norm[:, None] * cosines
        for j in random_orders(m, self.seed, int(self.step)).T:  # j[i]: whose gradient i is compared with
            exists = (size > 1e-7 * norm) & (norm[j] > 0)
            phi = np.clip(along[i, j] / np.where(exists, size, 1.0), -1.0, 1.0)
            pulled = exists & (phi < phi_hat[i, j])
            target = np.minimum(phi_hat[i, j], _CEILING)
            sine, sine_hat = np.sqrt(1 - phi * phi), np.sqrt(1 - target**2)
            # equation 3 in units of |g_j|, its fraction taken apart: the cosine becomes the target
            a = np.where(pulled, size * (target / sine_hat * sine - phi), 0.0)
            added[i, j] = a
            along += a[:, None] * cosines[j]
            # what of p_i is perpendicular to g_j stays: |p_i| sin is the same before and after
            size = np.where(pulled, size * sine / sine_hat, size)
            phi_hat[i, j] += np.where(exists, self.beta * (phi - phi_hat[i, j]), 0.0)
        stored[pairs] = phi_hat
        return 1 + np.divide(added.sum(0), norm, out=np.zeros(m), where=norm > 0)
