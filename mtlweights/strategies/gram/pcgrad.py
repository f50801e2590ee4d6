"""PCGrad (Yu et al. 2020)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import added_in_turn


class PCGrad(GramStrategy):
    """Gradient surgery: every task's gradient loses what conflicts with another's.

    For every i, starting from ``p_i = g_i``, for every ``j != i`` in random order: where
    ``p_i . g_j < 0``, ``p_i -= (p_i . g_j / |g_j|^2) g_j``, with the original g_j. The direction is
    ``sum_i p_i``.

    T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn, "Gradient Surgery for Multi-Task
    Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782, algorithm 1.

    All of it is done on the Gramian, with p_i held as coefficients of the g_j, which is exact. As in
    the paper, and unlike much public code: a fresh order for every i, i itself left out, the sum
    and not the mean. For T = 2 there is no order and
    ``w_i = 1 - min(g_1 . g_2, 0) / |g_i|^2``. Departure: the orders are a function of (seed,
    committed step), not of a random stream, so that a repeated or resumed step is the same.
    """

    paper = "Yu et al. 2020, https://arxiv.org/abs/2001.06782"
    family = "gramian"
    space = {}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], all at least 1, of the direction ``sum_i p_i``."""
        return project_conflicts(gram, random_orders(len(gram), self.seed, int(self.step)))


def project_conflicts(gram: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Weights [m] of ``sum_i p_i`` after algorithm 1, in O(m^3).

    ``orders`` [m, m - 1]: for every i, the others in the order in which it meets them.
    """
    m, squared = len(gram), np.diagonal(gram)
    if m == 2:  # one other, no order
        return 1 - np.divide(min(gram[0, 1], 0.0), squared, out=np.zeros(2), where=squared > 0)
    return 1 + conflicts_removed(gram, orders)


def conflicts_removed(gram: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """How much of each of k gradients is added in all [k] while the first m are freed of their conflicts.

    ``gram`` [k, k], ``orders`` [m, n]: the gradients that each meets, one after the other.
    """
    squared = np.diagonal(gram)
    inverse = np.divide(1.0, squared, out=np.zeros(len(gram)), where=squared > 0)[orders.T]
    rule = lambda k, q: np.maximum(-q, 0.0) * inverse[k]  # noqa: E731
    return added_in_turn(gram, gram[: len(orders)], orders, rule)


def random_orders(m: int, seed: int, step: int) -> np.ndarray:
    """For each of m tasks, the others in random order: [m, m - 1], a function of (seed, step)."""
    if m < 3:
        return np.arange(m)[::-1, None][:, : m - 1]
    key = np.array([seed % 2**64, step], dtype=np.uint64)
    ranks = np.random.Generator(np.random.Philox(key=key)).random((m, m - 1)).argsort(axis=1)
    return ranks + (ranks >= np.arange(m)[:, None])
