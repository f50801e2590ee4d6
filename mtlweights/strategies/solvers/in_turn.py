"""Vectors that are corrected by one gradient after the other, each in an order of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

#: places of the orders between two products of matrices
_BLOCK = 16


def added_in_turn(
    matrix: np.ndarray,
    products: np.ndarray,
    orders: np.ndarray,
    rule: Callable[[int, np.ndarray], np.ndarray],
) -> np.ndarray:
    """How much of each of k gradients is added in all [k] when m vectors are corrected, all at once.

    ``matrix`` [k, k]: ``g_j . g_l``; ``products`` [m, k]: ``p_i . g_j`` at the start; ``orders`` [m, n]: the
    gradients that p_i meets, each at most once. In O(m n k). At every place a of the orders, ``rule(a, q)``
    [m] is given the products ``q_i = p_i . g_j``, j = orders[i, a], as they are by then, and says what is
    added: ``p_i += rule_i g_j``.

    A vector's products with the gradients of the next places are kept up to date step by step, all others
    once in a block of places, by one product of matrices.
    """
    (m, n), width = orders.shape, len(matrix)
    added, products, rows = np.zeros(width), products.copy(), np.arange(m) * width
    for first in range(0, n, _BLOCK):
        met = np.ascontiguousarray(orders[:, first : first + _BLOCK].T)
        steps = products.ravel().take(rows + met)
        _within_block(matrix, steps, met, rule, first)
        added += np.bincount(met.ravel(), steps.ravel(), width)
        if first + _BLOCK < n:
            products += _sparse_rows(steps, met, width) @ matrix
    return added


def _within_block(
    matrix: np.ndarray,
    ahead: np.ndarray,
    met: np.ndarray,
    rule: Callable[[int, np.ndarray], np.ndarray],
    first: int,
) -> None:
    """Puts the steps in the place of ``ahead`` [b, m], the products with the gradients ``met`` [b, m]."""
    entries, starts = matrix.ravel(), met * len(matrix)
    for k in range(len(met)):
        # invariant: from k on, ahead holds the products as they are before place k
        ahead[k] = rule(first + k, ahead[k])
        ahead[k + 1 :] += ahead[k] * entries.take(starts[k] + met[k + 1 :])


def _sparse_rows(steps: np.ndarray, met: np.ndarray, width: int) -> Any:
    """``steps`` [b, m] at the columns ``met`` [b, m] of a sparse [m, width], without its zeros."""
    from scipy.sparse import csr_array

    some = (steps != 0).T
    ends = np.concatenate([[0], some.sum(axis=1).cumsum()])
    return csr_array((steps.T[some], met.T[some], ends), shape=(steps.shape[1], width))
