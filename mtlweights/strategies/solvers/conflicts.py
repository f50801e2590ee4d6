"""PCGrad's projections."""

from __future__ import annotations

import numpy as np


def project_conflicts(gram: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """Weights [m] of the sum of all gradients after PCGrad's projections.

    ``orders`` [m, m - 1]: for every task, the others in the order to project on. O(m^3), over all
    tasks at once.
    """
    m = len(gram)
    squared = np.diagonal(gram)
    weights = np.ones(m)
    if m == 2:
        conflict = min(gram[0, 1], 0.0)
        weights[squared > 0] -= conflict / squared[squared > 0]
        return weights
    tasks = np.arange(m)
    products = gram.copy()  # [i, j]: p_i . g_j
    for others in orders.T:
        conflict = np.minimum(products[tasks, others], 0.0)
        square = squared[others]
        step = np.divide(-conflict, square, out=np.zeros(m), where=square > 0)
        products += step[:, None] * gram[others]
        weights += np.bincount(others, step, m)
    return weights
