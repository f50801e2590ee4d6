"""The simplex: projection, descent, the shortest convex combination, active-set steps that CAGrad shares."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .complementarity import block_pivoting

#: of the optimality conditions, relative to their terms
TOLERANCE = 1e-13


def project_simplex(point: np.ndarray, total: float = 1.0) -> np.ndarray:
    """The nearest y [m] to ``point`` [m] with ``y >= 0`` and ``sum(y) = total >= 0``.

    Exact, by one sort (J. Duchi, S. Shalev-Shwartz, Y. Singer, T. Chandra, "Efficient Projections onto
    the l1-Ball for Learning in High Dimensions", ICML 2008, figure 1).
    """
    shifted = point - point.max()  # what stays positive is then of the size of ``total``, and exact
    threshold, added = -total, 0.0
    for k, value in enumerate(sorted(shifted.tolist(), reverse=True), 1):
        added += value
        # What the k largest entries lose each if they alone remain; the last k that keeps them positive.
        excess = (added - total) / k
        if value <= excess:
            break
        threshold = excess
    return np.maximum(shifted - threshold, 0.0)


def momentum_steps(
    matrix: np.ndarray, linear: np.ndarray, start: np.ndarray, lr: float, momentum: float, steps: int
) -> np.ndarray:
    """Where projected gradient steps on the simplex, along ``matrix @ a + linear``, lead from ``start`` [m].

    The momentum is that of `torch.optim.SGD`, from zero. ``matrix`` [m, m] need not be symmetric.
    """
    if len(start) == 2:
        return _momentum_steps_of_two(matrix, linear, start, lr, momentum, steps)
    alpha, velocity = start, np.zeros(len(start))
    for _ in range(steps):
        velocity = momentum * velocity + matrix @ alpha + linear
        alpha = project_simplex(alpha - lr * velocity)
    return alpha


def stable_step(matrix: np.ndarray, momentum: float) -> float:
    """A step size at which `momentum_steps` converges: half of ``2 (1 + momentum) / s``, inf where s = 0.

    Steps stay on the simplex, so ``matrix`` [m, m] counts without the means of its rows and columns; s is
    the Schatten 4-norm of what is left, a bound on its largest singular value.
    """
    centred = matrix - matrix.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    size = float(np.linalg.norm(centred @ centred.T)) ** 0.5
    return (1 + momentum) / size if size > 0 else np.inf


def _momentum_steps_of_two(
    matrix: np.ndarray, linear: np.ndarray, start: np.ndarray, lr: float, momentum: float, steps: int
) -> np.ndarray:
    """The same in one number: only the difference of the two slopes moves the share."""
    slope = float(matrix[0, 0] - matrix[1, 0] - matrix[0, 1] + matrix[1, 1])
    level = float(matrix[0, 1] - matrix[1, 1] + linear[0] - linear[1])
    share, velocity = float(start[0]), 0.0
    for _ in range(steps):
        velocity = momentum * velocity + slope * share + level
        share = min(max(share - lr * velocity / 2, 0.0), 1.0)
    return np.array([share, 1 - share])


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
    alpha = _first(gram)
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
        if slack[entering] >= -TOLERANCE:
            return best
        alpha = descend(lambda face, _: face_minima(gram, face)[:, 0], alpha, entering)


def _first(gram: np.ndarray) -> np.ndarray:
    """Where to start: the least point of the face that pivoting finds, else the shortest gradient.

    For the shortest point a and ``u = a / |a|^2`` it is ``u >= 0, G u >= 1`` and one of both is equal.
    """
    length = np.sqrt(np.diagonal(gram))
    alpha = np.zeros(len(gram))
    pull = -length.min() / length
    face = np.flatnonzero(block_pivoting(gram / length / length[:, None], pull[None])[0] > 0)
    if len(face):
        with np.errstate(divide="ignore", invalid="ignore"):  # a face of dependent gradients may have none
            target = face_minima(gram, face)[:, 0]
        if (target > 0).all() and np.isfinite(target).all():
            alpha[face] = target
            return alpha
    alpha[length.argmin()] = 1.0
    return alpha


def descend(
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


def face_minima(gram: np.ndarray, face: np.ndarray, linear: np.ndarray | None = None) -> np.ndarray:
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
    return y
