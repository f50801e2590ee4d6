"""Gradient Vaccine (Wang et al. 2021)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_share
from ..solvers import added_in_turn, cosines_and_norms
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
        orders, stored = random_orders(len(gram), self.seed, int(self.step)), self.target.numpy()
        pairs = present * self.n_tasks + present[orders.T]
        phi_hat = stored.take(pairs)  # [m - 1, m], in the order in which pairs meet
        rule = self._pull(norm, phi_hat, (norm > 0)[orders.T])
        added = added_in_turn(cosines, norm[:, None] * cosines, orders, rule)
        stored.put(pairs, phi_hat)
        return 1 + np.divide(added, norm, out=np.zeros(len(gram)), where=norm > 0)

    def _pull(
        self, norm: np.ndarray, phi_hat: np.ndarray, some: np.ndarray
    ) -> Callable[[int, np.ndarray], np.ndarray]:
        """For all i at once: what p_i gains of ``u_j = g_j / |g_j|`` by ``p_i . u_j``; moves ``phi_hat``."""
        size, least = norm.copy(), 1e-7 * norm  # size: |p_i|
        target = np.minimum(phi_hat, _CEILING)
        sine_hat = np.sqrt(1 - target**2)
        steepness = target / sine_hat

        def pull(k: int, along: np.ndarray) -> np.ndarray:
            exists = (size > least) & some[k]
            phi = np.minimum(np.maximum(along / np.where(exists, size, 1.0), -1.0), 1.0)
            above = phi - phi_hat[k]
            pulled = exists & (above < 0)
            sine = np.sqrt(1 - phi * phi)
            # equation 3 in units of |g_j|, its fraction taken apart: the cosine becomes the target
            gained = np.where(pulled, size * (steepness[k] * sine - phi), 0.0)
            # what of p_i is perpendicular to g_j stays: |p_i| sin is the same before and after
            np.divide(size * sine, sine_hat[k], out=size, where=pulled)
            phi_hat[k] += np.where(exists, self.beta * above, 0.0)
            return gained

        return pull
