"""Active-set solvers on the simplex: the shortest combination, and CAGrad's."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .dual_cone import dual_cone

_TOLERANCE = 1e-13


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
        alpha = _descend(lambda face, _: _bordered(gram, face)[:, 0], alpha, entering)


def _descend(
    least: Callable[[np.ndarray, np.ndarray], np.ndarray], alpha: np.ndarray, entering: np.intp
) -> np.ndarray:
    """One major cycle: to the least point of the face spanned by alpha's support and ``entering``.

    ``least(face, alpha[face])`` is the least point of the affine hull of the tasks ``face``, or any
    point outside the simplex in a direction of descent.
    """
    support = alpha > 0
    support[entering] = True
    alpha = alpha.copy()
    while True:
        face = np.flatnonzero(support)
        inside, target = alpha[face], least(face, alpha[face])
        leaving = target <= 0
        if not leaving.any():
            alpha[face] = target
            return alpha
        # As far towards the target as the simplex allows, then drop what has become zero.
        gap = inside - target
        ratio = np.divide(inside, gap, out=np.where(leaving, 0.0, np.inf), where=leaving & (inside > 0))
        reach = ratio.min()
        alpha[face] = np.where(ratio <= reach, 0.0, inside - reach * gap)
        support[face[ratio <= reach]] = False


def _bordered(gram: np.ndarray, face: np.ndarray, linear: np.ndarray | None = None) -> np.ndarray:
    """Stationary points on the affine hull of the tasks ``face``: [k, 1] or [k, 2].

    The first column minimises ``y @ G @ y`` with y summing to 1, the second, if ``linear`` [m] is
    given, ``y @ G @ y / 2 + linear @ y`` with y summing to 0.
    """
    k = len(face)
    gram = gram[face[:, None], face]
    size = np.sqrt(np.diagonal(gram))
    least = size.min()
    size = size / least
    # For y = z / size: rows of unit size keep small gradients exact.
    system = np.zeros((k + 1, k + 1))
    system[:k, :k] = gram / size / size[:, None] / least**2
    system[:k, k] = system[k, :k] = 1 / size
    right = np.zeros((k + 1, 1 if linear is None else 2))
    right[k, 0] = 1.0
    if linear is not None:
        right[:k, 1] = -linear[face] / size / least**2
    try:
        y = np.linalg.solve(system, right)[:k] / size[:, None]
    except np.linalg.LinAlgError:  # gradients equal up to rounding
        y = np.linalg.lstsq(system, right, rcond=None)[0][:k] / size[:, None]
    y[:, 0] /= y[:, 0].sum()
    return np.asarray(y)


def conflict_averse(gram: np.ndarray, c: float) -> np.ndarray:
    """Weights [m] of CAGrad's direction ``d``: the largest ``min_i g_i . d`` with ``|d - g_0| <= c |g_0|``.

    g_0 is the mean gradient, 0 <= c < 1. By duality ``d = g_0 + c |g_0| g_w / |g_w|`` with
    ``g_w = sum_i w_i g_i`` and w the point of the simplex that minimises
    ``F(w) = g_w . g_0 + c |g_0| |g_w|``.

    Closed form for m = 2, else an active-set method: on the affine hull of a face F has its
    stationary point in closed form, so that few faces are tried. Where ``g_w = 0`` is optimal, the
    direction is the projection of g_0 on the cone where no task's loss rises.
    """
    m = len(gram)
    mean = np.full(m, 1 / m)
    largest = gram.diagonal().max()
    if not largest > 0:
        return mean
    gram = gram / largest
    linear = gram.sum(axis=1) / m
    squared = linear.sum() / m  # |g_0|^2
    if c == 0 or m == 1 or not squared > 1e-15:
        return mean * (1 + c) if m == 1 else mean
    radius = c * math.sqrt(squared)
    alpha = _averse_of_two(gram, linear, radius) if m == 2 else _averse(gram, linear, radius)
    if alpha is None:
        return mean + _towards_the_cone(gram)
    return np.asarray(mean + radius / math.sqrt(alpha @ gram @ alpha) * alpha)


def _towards_the_cone(gram: np.ndarray) -> np.ndarray:
    m = len(gram)
    return np.asarray((dual_cone(gram, np.full((1, m), 1 / m)) - 1 / m)[0])


def _at_zero(gram: np.ndarray, alpha: np.ndarray) -> bool:
    """Whether g_w is zero as far as its Gramian can tell."""
    return bool(alpha @ gram @ alpha <= 1e-14 * (alpha @ np.abs(gram) @ alpha))


def _averse_of_two(gram: np.ndarray, linear: np.ndarray, radius: float) -> np.ndarray | None:
    """The minimiser [2] of F, or None where g_w = 0 is optimal. F's derivative in w_1 has one zero."""
    g11, g12, g22 = gram[0, 0], gram[0, 1], gram[1, 1]
    square, slope = g11 - 2 * g12 + g22, linear[0] - linear[1]
    # |g_w|^2 = square y^2 + rest, with y = w_1 - middle.
    rest = max(g11 * g22 - g12**2, 0.0)
    inner = radius**2 * square - slope**2
    if not square > 1e-15:
        first = 0.5
    elif inner > 0:
        first = (g22 - g12) / square - slope / square * math.sqrt(rest / inner)
    else:
        first = 0.0 if slope > 0 else 1.0
    first = min(max(first, 0.0), 1.0)
    alpha = np.array([first, 1 - first])
    return None if _at_zero(gram, alpha) else alpha


def _averse(gram: np.ndarray, linear: np.ndarray, radius: float) -> np.ndarray | None:
    """As `_averse_of_two`, for any m."""
    size, least_point = np.abs(gram), _averse_face(gram, linear, radius)
    alpha = np.zeros(len(gram))
    alpha[(linear + radius * np.sqrt(gram.diagonal())).argmin()] = 1.0
    best, least = alpha, float("inf")
    while True:
        if _at_zero(gram, alpha):
            rise = _towards_the_cone(gram)
            if rise @ gram @ rise <= radius**2 * (1 + 1e-12) or least < 0:
                return None if least >= 0 else best
            alpha = rise / rise.sum()
        products = gram @ alpha
        pull = radius / math.sqrt(alpha @ products)
        value = float((linear + pull * products) @ alpha)
        if not value < least:
            return best
        best, least = alpha, value
        scale = np.abs(linear) + pull * (size @ alpha) + abs(value)
        slack = np.where(alpha > 0, 0.0, (linear + pull * products - value) / scale)
        entering = slack.argmin()
        if slack[entering] >= -_TOLERANCE:
            return best
        alpha = _descend(least_point, alpha, entering)


def _averse_face(
    gram: np.ndarray, linear: np.ndarray, radius: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F's least point on a face: x + t y, x the shortest point, y where ``linear`` pulls; t is known."""

    def least(face: np.ndarray, inside: np.ndarray) -> np.ndarray:
        x, y = _bordered(gram, face, linear).T
        part = gram[face[:, None], face]
        room = radius**2 - y @ part @ y
        if room > 0:
            return np.asarray(x + math.sqrt(max(x @ part @ x, 0.0) / room) * y)
        return inside + 2 / -y.min() * y  # F falls without end along y

    return least
