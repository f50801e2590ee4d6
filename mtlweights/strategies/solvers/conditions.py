"""Descent under linear conditions on the losses: programmes that one number decides."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .dual_cone import least_change
from .simplex import min_norm

#: eigenvalues relative to the largest: below it none, and what the one that matters is then taken for
_FLAT, _SOFT = 1e-12, 1e-9


def under_bounds(gram: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    """Multipliers u [m] >= 0 of ``min_d max_i g_i . d + |d|^2 / 2`` with ``g_i . d <= bound_i`` [m].

    ``d = -sum_i u_i g_i``; a bound may be inf. None where no d meets them. Once the maximum is some c, d is
    the shortest with ``g_i . d <= min(c, bound_i)``; what is left is convex in c, with slope ``1 - s``, s the
    sum of the multipliers at which c is the narrower: it is 1 at the solution.
    """
    bounded = np.flatnonzero(bound < np.inf)
    if not len(bounded):
        return min_norm(gram)
    if least_change(gram[np.ix_(bounded, bounded)], bound[bounded]) is None:
        return None

    # on the Pareto front no d lowers all losses: there the addition stands for a multiplier without end
    soft = gram + _SOFT * np.diagonal(gram).max() * np.eye(len(gram))

    def multipliers(c: float) -> np.ndarray:
        return least_change(soft, np.minimum(c, bound))  # type: ignore[return-value]  # soft has full rank

    def slope(c: float) -> float:
        return 1 - float(multipliers(c)[c < bound].sum())

    size = float(np.diagonal(gram).max() + np.abs(bound[bounded]).max())
    return multipliers(_root(slope, size))


def along_ray(gram: np.ndarray, wanted: np.ndarray, r: np.ndarray, most: float) -> np.ndarray:
    """Multipliers [m] of ``min_d max_i g_i . d + |d|^2 / 2`` with ``r_i (g_i . d + wanted_i)`` equal for all.

    That common number t is at most ``most``. ``d = -sum_i u_i g_i``, ``u = G^-1 (wanted - t / r)``, and t
    is where the convex ``|d|^2 / 2 + max_i (t / r_i - wanted_i)`` is least. A multiplier may be negative.
    Changes that dependent gradients cannot make are left out.
    """
    a = 1 / r
    root = _inverse_root(gram, a)
    first, second = root.T @ a, root.T @ wanted

    def slope(t: float) -> float:
        return float(first @ (t * first - second)) + a[(t * a - wanted).argmax()]

    size = float(np.abs(wanted * r).max() + a.max() / (first @ first))
    t = min(_root(slope, size), most)
    return root @ (second - t * first)


def _inverse_root(gram: np.ndarray, a: np.ndarray) -> np.ndarray:
    """R [m, k] with ``R @ R.T = G^-1``, of dependent gradients on their span and on ``a``.

    On the Pareto front the gradients are dependent, and ``a`` tells where on it: t is then what the losses
    say, and the multipliers on the front sum to what those of the maximum must.
    """
    values, directions = np.linalg.eigh(gram)
    largest = values[-1] if values[-1] > 0 else 1.0
    kept = values > _FLAT * largest
    span = directions[:, kept]
    left = a - span @ (span.T @ a)
    root = span / np.sqrt(values[kept])
    if left @ left <= _SOFT * (a @ a):
        return root
    return np.column_stack([root, left / np.sqrt(left @ left * _SOFT * largest)])


def _root(slope: Callable[[float], float], size: float) -> float:
    """Where a slope that rises, perhaps in jumps, passes 0; ``size`` is a first guess of how far from 0."""
    from scipy.optimize import brentq

    low, high = -size, size
    for _ in range(200):
        if slope(low) < 0:
            break
        low *= 4
    for _ in range(200):
        if slope(high) >= 0:
            break
        high *= 4
    return float(brentq(slope, low, high, xtol=1e-15 * size, rtol=1e-15, maxiter=200))
