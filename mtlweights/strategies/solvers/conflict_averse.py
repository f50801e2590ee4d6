"""CAGrad's problem."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from .dual_cone import dual_cone
from .simplex import TOLERANCE, descend, face_minima


def conflict_averse(gram: np.ndarray, c: float) -> np.ndarray:
    """Weights [m] of CAGrad's direction ``d``: the largest ``min_i g_i . d`` with ``|d - g_0| <= c |g_0|``.

    g_0 is the mean gradient, 0 <= c < 1. By duality ``d = g_0 + c |g_0| g_w / |g_w|`` with
    ``g_w = sum_i w_i g_i`` and w the point of the simplex that minimises
    ``F(w) = g_w . g_0 + c |g_0| |g_w|``.

    Below ``root_phi`` is the paper's ``sqrt(phi) = c |g_0|`` and ``linear`` [m] holds the ``g_i . g_0``:
    ``F(w) = linear @ w + root_phi sqrt(w @ gram @ w)``.

    Closed form for m = 2, else an active-set method: on the affine hull of a face F has its
    stationary point in closed form, so that few faces are tried. Where ``g_w = 0`` is optimal, the
    direction is the projection of g_0 on the cone where no task's loss rises.
    """
    m = len(gram)
    mean = np.full(m, 1 / m)
    largest = gram.diagonal().max()
    if not largest > 0:
        return mean
    gram = np.asarray(gram / largest)
    linear = gram.sum(axis=1) / m
    squared = float(linear.sum()) / m  # |g_0|^2
    if c == 0 or m == 1 or not squared > 1e-15:
        return np.full(m, 1 + c if m == 1 else 1 / m)
    root_phi = c * math.sqrt(squared)
    w = _averse_of_two(gram, linear, root_phi) if m == 2 else _averse(gram, linear, root_phi)
    if w is None:
        return mean + _towards_the_cone(gram)
    return mean + root_phi / math.sqrt(w @ gram @ w) * w


def _towards_the_cone(gram: np.ndarray) -> np.ndarray:
    m = len(gram)
    return (dual_cone(gram, np.full((1, m), 1 / m)) - 1 / m)[0]


def _at_zero(gram: np.ndarray, w: np.ndarray) -> bool:
    """Whether g_w is zero as far as its Gramian can tell."""
    return bool(w @ gram @ w <= 1e-14 * (w @ np.abs(gram) @ w))


def _averse_of_two(gram: np.ndarray, linear: np.ndarray, root_phi: float) -> np.ndarray | None:
    """The minimiser [2] of F, or None where g_w = 0 is optimal. F's derivative in w_1 has one zero."""
    g11, g12, g22 = gram[0, 0], gram[0, 1], gram[1, 1]
    square, slope = g11 - 2 * g12 + g22, linear[0] - linear[1]
    # |g_w|^2 = square y^2 + rest, with y = w_1 - middle.
    rest = max(g11 * g22 - g12**2, 0.0)
    inner = root_phi**2 * square - slope**2
    if not square > 1e-15:
        first = 0.5
    elif inner > 0:
        first = (g22 - g12) / square - slope / square * math.sqrt(rest / inner)
    else:
        first = 0.0 if slope > 0 else 1.0
    first = min(max(first, 0.0), 1.0)
    w = np.array([first, 1 - first])
    return None if _at_zero(gram, w) else w


def _averse(gram: np.ndarray, linear: np.ndarray, root_phi: float) -> np.ndarray | None:
    """As `_averse_of_two`, for any m."""
    least_point = _averse_face(gram, linear, root_phi)
    w = _start(gram, linear, root_phi, least_point)
    best, least = w, float("inf")
    while True:  # F falls in every round, and there are finitely many faces
        if _at_zero(gram, w):  # F has no derivative there: it is the optimum, or a way down leads out
            rise = _towards_the_cone(gram)
            if rise @ gram @ rise <= root_phi**2 * (1 + 1e-12) or least < 0:
                return None if least >= 0 else best  # |rise| <= root_phi: 0 is in F's subdifferential
            w = rise / rise.sum()
        value, slack = _value_and_slack(gram, linear, root_phi, w)
        if not value < least:  # rounding: no further
            return best
        best, least = w, value
        slack[w > 0] = 0.0  # w is the least point of its face, where the derivatives equal F
        entering = slack.argmin()
        if slack[entering] >= -TOLERANCE:  # no derivative below F: the optimum of all (KKT)
            return best
        w = descend(least_point, w, entering)


def _start(
    gram: np.ndarray,
    linear: np.ndarray,
    root_phi: float,
    least_point: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """Where to start: the best least point of a face that pivoting finds, else the best vertex.

    All tasks that should leave the face leave it, and all that should enter it enter, as long as that brings
    their number down in three rounds.
    """
    m, best, fewest, left = len(gram), None, len(gram) + 1, 3
    inside = np.full(m, bool(gram.diagonal().all()))  # a zero gradient is the best vertex, or never enters
    while left and inside.any():
        face, w = np.flatnonzero(inside), np.zeros(m)
        w[face] = least_point(face, np.full(len(face), 1 / len(face)))
        if not w @ gram @ w > 0 or _at_zero(gram, w):
            break
        slack = _value_and_slack(gram, linear, root_phi, w)[1]
        wrong = np.where(inside, w <= 0, slack < -TOLERANCE)
        if not wrong[face].any():
            if np.abs(slack[face]).max() > 1e-10:  # dependent gradients: the face was not solved
                break
            best = w
        count = int(wrong.sum())
        if count == 0:
            break
        fewest, left = (count, 3) if count < fewest else (fewest, left - 1)
        inside ^= wrong
    if best is None:
        best = np.zeros(m)
        best[(linear + root_phi * np.sqrt(gram.diagonal())).argmin()] = 1.0
    return best


def _value_and_slack(
    gram: np.ndarray, linear: np.ndarray, root_phi: float, w: np.ndarray
) -> tuple[float, np.ndarray]:
    """F, and its derivatives less F, relative to their terms: at least 0 at the optimum, 0 in the face."""
    products = gram @ w
    pull = root_phi / math.sqrt(w @ products)
    slope = linear + pull * products
    value = float(slope @ w)
    return value, (slope - value) / (np.abs(linear) + pull * (np.abs(gram) @ w) + abs(value))


def _averse_face(
    gram: np.ndarray, linear: np.ndarray, root_phi: float
) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    """F's least point on a face: x + t y, x the shortest point, y where ``linear`` pulls; t is known."""

    def least(face: np.ndarray, inside: np.ndarray) -> np.ndarray:
        x, y = face_minima(gram, face, linear).T
        part = gram[face[:, None], face]
        room = root_phi**2 - y @ part @ y
        if room > 0:
            return x + math.sqrt(max(x @ part @ x, 0.0) / room) * y
        return np.asarray(inside + 2 / -y.min() * y)  # F falls without end along y

    return least
