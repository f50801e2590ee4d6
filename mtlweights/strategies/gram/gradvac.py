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

    For every i, starting from ``p_i = g_i``, for every ``j != i`` in random order: with c the cosine
    of p_i and g_j and t_ij its moving average, where ``c < t_ij``,

    ``p_i += |p_i| (t_ij sqrt(1 - c^2) - c sqrt(1 - t_ij^2)) / (|g_j| sqrt(1 - t_ij^2)) g_j``,

    after which their cosine is t_ij; then ``t_ij = (1 - beta) t_ij + beta c``. The direction is
    ``sum_i p_i``. t starts at 0, so the first step is PCGrad's.

    Z. Wang, Y. Tsvetkov, O. Firat, Y. Cao, "Gradient Vaccine: Investigating and Improving Multi-task
    Optimization in Massively Multilingual Models", ICLR 2021, https://arxiv.org/abs/2010.05874,
    equations 2 and 3, algorithm 1.

    All of it is done on the Gramian, over all i at once. The granularity is the whole shared
    gradient. Public code has beta = 0.5; one version updates t only where it corrects. Departures:
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
        m, stored = len(gram), self.target.numpy()
        cosines, norms = cosines_and_norms(gram)
        orders = random_orders(m, self.seed, int(self.step)).T
        pairs = orders + m * np.arange(m)  # places in a flattened [m, m]
        wanted = stored[present[:, None], present].take(pairs)
        seen = wanted.copy()
        sine_wanted = np.sqrt(1 - np.minimum(wanted, _CEILING) ** 2)
        tangent = np.minimum(wanted, _CEILING) / sine_wanted
        products, length, added = norms[:, None] * cosines, norms.copy(), np.zeros(m)
        for k, others in enumerate(orders):
            exists = (length > 1e-7 * norms) & (norms[others] > 0)
            cosine = products.take(pairs[k]) / np.where(exists, length, 1.0)
            cosine = np.minimum(np.maximum(cosine, -1.0), 1.0)
            seen[k, exists] = cosine[exists]
            corrected = exists & (cosine < wanted[k])
            sine = np.sqrt(1 - cosine * cosine)
            step = np.where(corrected, length * (tangent[k] * sine - cosine), 0.0)
            products += step[:, None] * cosines[others]
            length = np.where(corrected, length * sine / sine_wanted[k], length)
            added += np.bincount(others, step, m)
        stored[present, present[orders]] += self.beta * (seen - wanted)
        return 1 + np.divide(added, norms, out=np.zeros(m), where=norms > 0)
