"""Solvers on the T x T Gramian. Pure functions of float64 arrays; they never change their input."""

from __future__ import annotations

import numpy as np

_TOLERANCE = 1e-13


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


def min_norm(gram: np.ndarray) -> np.ndarray:
    """The point [m] of the simplex that minimises ``a @ gram @ a``; gram is positive semidefinite.

    Closed form for m = 2, else Wolfe's active-set algorithm (P. Wolfe, "Finding the nearest point in
    a polytope", Mathematical Programming 11, 1976, https://doi.org/10.1007/BF01580381). Every major
    cycle lowers the objective or is the last, so it ends. All tolerances are relative: the objective
    is exact up to rounding, and so the point up to its square root where the objective is flat. Tasks
    with a zero gradient, if any, share the weight: the minimum is zero.
    """
    squared = np.diagonal(gram)
    zero = squared <= 0
    if zero.any():
        return np.where(zero, 1 / zero.sum(), 0.0)
    gram = gram / squared.min()
    return _min_norm_of_two(gram) if len(gram) == 2 else _wolfe(gram)


def _min_norm_of_two(gram: np.ndarray) -> np.ndarray:
    first, second = gram[1, 1] - gram[0, 1], gram[0, 0] - gram[0, 1]
    both = first + second
    if not both > 0:  # equal gradients
        return np.full(2, 0.5)
    share = min(max(first / both, 0.0), 1.0)
    return np.array([share, 1 - share])


def _wolfe(gram: np.ndarray) -> np.ndarray:
    size = np.abs(gram)
    alpha = np.zeros(len(gram))
    alpha[np.diagonal(gram).argmin()] = 1.0
    best, least = alpha, float("inf")
    while True:
        products = gram @ alpha
        value = float(alpha @ products)
        if value <= 0:
            return alpha
        if not value < least:
            return best
        best, least = alpha, value
        # Relative to the sum without cancellation, to which rounding errors are proportional.
        slack = np.where(alpha > 0, 0.0, (products - value) / (size @ alpha + value))
        entering = slack.argmin()
        if slack[entering] >= -_TOLERANCE:
            return best
        alpha = _descend(gram, alpha, entering)


def _descend(gram: np.ndarray, alpha: np.ndarray, entering: np.intp) -> np.ndarray:
    """One major cycle: to the least point of the face spanned by alpha's support and ``entering``."""
    support = alpha > 0
    support[entering] = True
    alpha = alpha.copy()
    while True:
        target = np.zeros_like(alpha)
        target[support] = _affine_min_norm(gram[np.ix_(support, support)])
        leaving = support & (target <= 0)
        if not leaving.any():
            return target
        # As far towards the target as the simplex allows, then drop what has become zero.
        inside = alpha[leaving]
        ratio = np.divide(inside, inside - target[leaving], out=np.zeros_like(inside), where=inside > 0)
        reach = ratio.min()
        alpha += reach * (target - alpha)
        support[np.flatnonzero(leaving)[ratio <= reach]] = False
        alpha[~support] = 0.0


def _affine_min_norm(gram: np.ndarray) -> np.ndarray:
    """The point [k], summing to 1 and of any signs, that minimises ``y @ gram @ y``."""
    k = len(gram)
    size = np.sqrt(np.diagonal(gram))
    size = size / size.min()
    # Stationarity and the sum, for y = z / size: rows of unit size keep small gradients exact.
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = gram / size / size[:, None]
    system[:k, k] = system[k, :k] = 1 / size
    right = np.zeros(k + 1)
    right[k] = 1.0
    try:
        y = np.linalg.solve(system, right)[:k] / size
    except np.linalg.LinAlgError:  # gradients equal up to rounding
        y = np.linalg.lstsq(system, right, rcond=None)[0][:k] / size
    return np.asarray(y / y.sum())
