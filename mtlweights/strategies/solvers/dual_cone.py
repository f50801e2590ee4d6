"""Quadratic programmes over non-negative multipliers: projections on the cone where no loss rises."""

from __future__ import annotations

import numpy as np

from .complementarity import TOLERANCE, block_pivoting
from .cosines import cosines_and_norms

#: a sum of multipliers that no contradiction comes near, for conditions of at most 1
_SURE = 1e6


def dual_cone(gram: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Projections on ``{x: g_i . x >= 0 for all i}``, as coefficients [k, m] of the gradients.

    ``vectors`` [k, m]: the coefficients of the k vectors to project. A projection adds multiples of
    at least 0 of the gradients; it solves ``u >= 0, z = G (v + u) >= 0, u . z = 0``.

    Closed form for m = 2. Else `block_pivoting` for all k at once, and what it leaves undecided, where
    gradients are dependent, by `_least_squares`.
    """
    cosines, norms = cosines_and_norms(gram)
    linear = (vectors * norms) @ cosines
    largest = np.abs(linear).max(axis=1, keepdims=True)
    linear = np.divide(linear, largest, out=np.zeros_like(linear), where=largest > 0)
    if len(gram) == 2:
        added = np.array([_multipliers_of_two(cosines[0, 1], *row) for row in linear])
    else:
        added = block_pivoting(cosines, linear)
        rest = np.flatnonzero(np.isnan(added[:, 0]))
        if len(rest):
            units = vectors[rest] * norms / largest[rest]
            added[rest] = _least_squares(cosines, units, linear[rest])
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    return vectors + largest * added * inverse


def _multipliers_of_two(cosine: float, first: float, second: float) -> tuple[float, float]:
    if first >= 0 and second >= 0:
        return 0.0, 0.0
    if second >= cosine * first and first < 0:
        return -first, 0.0
    if first >= cosine * second and second < 0:
        return 0.0, -second
    sine = max(1 - cosine**2, 1e-300)
    return (cosine * second - first) / sine, (cosine * first - second) / sine


def _least_squares(cosines: np.ndarray, units: np.ndarray, linear: np.ndarray) -> np.ndarray:
    """The same u [k, m]: the multipliers at which ``|R (v + u)|^2`` is least over ``u >= 0``.

    R is a root of the cosines and v a row of ``units``. By C. Lawson, R. Hanson, "Solving Least Squares
    Problems", 1974, chapter 23; dependent gradients are no trouble to it. What misses the conditions by more
    than rounding is left to `_active_set`.
    """
    from scipy.optimize import nnls

    values, directions = np.linalg.eigh(cosines)
    root = (directions * np.sqrt(np.maximum(values, 0.0))).T
    out = np.zeros_like(linear)
    for k, row in enumerate(linear):
        try:
            out[k] = nnls(root, -root @ units[k])[0]
            z = cosines @ out[k] + row
            missed = max(-z.min(), np.abs(z[out[k] > 0]).max(initial=0.0))
        except RuntimeError:  # too many rounds
            missed = np.inf
        if missed > TOLERANCE * (1 + out[k].sum()):
            out[k] = _active_set(cosines, row)[0]
    return out


def least_change(gram: np.ndarray, linear: np.ndarray) -> np.ndarray | None:
    """Multipliers u [m] >= 0 that minimise ``u @ G @ u / 2 + linear @ u``, or None if there is no minimum.

    ``sum_i u_i g_i`` is then the shortest change x that fulfils ``g_i . x + linear_i >= 0``; None
    says that no x does.
    """
    if len(linear) == 1 and gram[0, 0] > 0:
        return np.maximum(-linear, 0.0) / gram[0, 0]
    cosines, norms = cosines_and_norms(gram)
    if (linear[norms == 0] < 0).any():
        return None
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    scaled = linear * inverse
    largest = np.abs(scaled).max(initial=0.0)
    if not largest > 0:
        return np.zeros_like(linear)
    u, feasible = block_pivoting(cosines, scaled[None] / largest)[0], True
    if not u.sum() < _SURE:  # NaN, or what grows where the conditions contradict each other
        u, feasible = _active_set(cosines, scaled / largest)
    return largest * u * inverse if feasible else None


def _active_set(cosines: np.ndarray, linear: np.ndarray) -> tuple[np.ndarray, bool]:
    """u [m], and whether all conditions could be met: the dual method of Goldfarb and Idnani.

    D. Goldfarb, A. Idnani, "A numerically stable dual method for solving strictly convex quadratic
    programs", Mathematical Programming 27, 1983, https://doi.org/10.1007/BF02591962, with the
    identity as Hessian.
    """
    m = len(linear)
    u, active = np.zeros(m), np.zeros(m, dtype=bool)
    for _ in range(10 * m):
        z = np.where(active, 0.0, cosines @ u + linear)
        entering = int(z.argmin())
        if z[entering] >= -TOLERANCE * (1 + u.sum()):
            break
        if not _enter(cosines, u, active, entering, z[entering]):
            return u, False
    return u, True


def _enter(cosines: np.ndarray, u: np.ndarray, active: np.ndarray, entering: int, z: float) -> bool:
    """Make one condition hold, in place, letting go of others whose multiplier falls to zero."""
    while True:
        # invariant: u >= 0, and z = 0 for every condition held
        held = np.flatnonzero(active)
        column = cosines[held, entering]
        along = np.linalg.solve(cosines[held[:, None], held], column)
        free = 1 - column @ along  # squared sine between the gradient and those held
        ratio = np.divide(u[held], along, out=np.full(len(held), np.inf), where=along > 1e-14)
        partial = ratio.min(initial=np.inf)
        full = -z / free if free > 1e-12 else np.inf
        # partial: until a multiplier falls to zero; full: until the condition holds
        step = min(partial, full)
        if step == np.inf:  # neither ever happens: the conditions contradict each other
            return False
        u[held] = np.maximum(u[held] - step * along, 0.0)
        u[entering] += step
        z += step * max(free, 0.0)
        if full <= partial:
            active[entering] = True
            return True
        leaving = held[ratio <= partial]
        active[leaving], u[leaving] = False, 0.0
