"""The weights of alpha-fairness, of which Nash bargaining is alpha = 1."""

from __future__ import annotations

import math

import numpy as np

from .complementarity import solve_positive
from .cosines import UNCERTAIN

#: Added to the cosine matrix's diagonal: no weight exceeds about 1e7 times what it is without conflict.
_RIDGE = 1e-14


def alpha_fair(gram: np.ndarray, alpha: float) -> np.ndarray:
    """Weights w [m] with ``(G w)_i = w_i ** (-1 / alpha)``, w > 0 (for large alpha some may underflow to 0).

    They minimise the convex ``w @ G @ w / 2 - sum_i w_i ** (1 - 1/alpha) / (1 - 1/alpha)`` (for
    alpha = 1, ``sum_i log w_i``), and ``w @ G @ w / 2 - sum_i (G w)_i ** (1 - alpha) / (1 - alpha)`` too.
    For m = 2 and alpha = 1 there is a closed form, for m = 2 a scalar equation; else damped Newton, above
    alpha = 2 on the second form, in which weights of any smallness are no more than powers of the progress
    ``G w``. Each weight is sought in units of what it would be if the gradients were orthogonal, so no
    scale of any gradient matters.

    Where gradients cancel, the weights would be infinite, and their direction all that the gradients
    are wrong by. So from there on where that is as long as the direction itself (two gradients less than
    1e-6 from opposed, in float64 too), the weights shrink together to the size they have without
    conflict, and the direction to zero up to rounding; at 1e-4 from opposed they are 4e-8 smaller. A
    zero gradient gets the largest weight of the others, 1 if there is none.
    """
    power = 1 / alpha
    squared = np.diagonal(gram)
    if not squared.all():
        return _without_zeros(gram, alpha)
    unit = squared ** (-1 / (1 + power))
    matrix = gram * unit * unit[:, None]
    pull = unit ** (1 - power)  # the diagonal of matrix
    matrix = matrix / pull.max()
    pull = pull / pull.max()
    if len(gram) == 1:
        return unit
    if len(gram) == 2:
        found = _of_two(float(pull[0]), float(pull[1]), float(matrix[0, 1]), power)
    else:
        ridged = matrix + np.diag(_RIDGE * pull)
        steep = _by_progress(ridged, pull, alpha) if alpha > 2 else None
        found = _newton(ridged, pull, power) if steep is None else steep
    return unit * found * _certain(matrix, pull, found)


def _certain(matrix: np.ndarray, pull: np.ndarray, b: np.ndarray) -> float:
    """What to shrink b by: 1 where ``|sum_i b_i g_i|`` is far above what it is uncertain by, else less."""
    uncertain = UNCERTAIN**2 * float(b**2 @ pull)
    length = max(float(b @ matrix @ b), _RIDGE * uncertain)
    return max(1 / (1 + (uncertain / length) ** 2), 1 / max(1.0, float(b.max())))


def _without_zeros(gram: np.ndarray, alpha: float) -> np.ndarray:
    some = np.flatnonzero(np.diagonal(gram) > 0)
    weights = np.ones(len(gram))
    if len(some):
        inner = alpha_fair(gram[some[:, None], some], alpha)
        weights[:] = inner.max()
        weights[some] = inner
    return weights


def _of_two(first: float, second: float, product: float, power: float) -> np.ndarray:
    """For ``[[first, product], [product, second]]``, whose diagonal is also the pull."""
    product = max(product, -math.sqrt(first * second) * (1 - _RIDGE))
    z = math.log(first / second) / 2 if power == 1 else _log_ratio(first, second, product, power)
    ratio = math.exp(-abs(z))
    own = first if z <= 0 else second  # of the larger weight
    w = (own / (own + product * ratio)) ** (1 / (1 + power))
    return np.array([w, w * ratio] if z <= 0 else [w * ratio, w])


def _log_ratio(first: float, second: float, product: float, power: float) -> float:
    """log(w_2 / w_1): the zero of a falling function, by Newton's method inside a bracket."""

    def excess(z: float) -> tuple[float, float]:
        r = math.exp(-abs(z))  # both divided by the larger of 1 and e^z, which may be any number
        one, two = (
            (first * r + product, product * r + second)
            if z > 0
            else (first + product * r, product + second * r)
        )
        value = math.log(one / first) - math.log(two / second) - power * z
        return value, r * (product**2 - first * second) / (one * two) - power

    if product < 0:
        low, high = math.log(-product / second), math.log(first / -product)
        z = (low + high) / 2
    else:
        z = 0.0
        ends = excess(z)[0] / power, excess(z)[0] / (1 + power)
        low, high = min(ends), max(ends)
    for _ in range(100):
        value, slope = excess(z)
        low, high = (z, high) if value > 0 else (low, z)
        after = z - value / slope
        if not low < after < high:
            after = (low + high) / 2
        if abs(after - z) <= 1e-15 * (1 + abs(z)):
            break
        z = after
    return z


def _newton(matrix: np.ndarray, pull: np.ndarray, power: float) -> np.ndarray:
    """b > 0 [m] with ``matrix @ b = pull * b ** -power``; relative steps, halved while they do not help."""
    b = np.full(len(pull), (pull.sum() / max(matrix.sum(), _RIDGE * pull.sum())) ** (1 / (1 + power)))
    diagonal = np.arange(len(pull))
    before, regime = np.inf, 0.1 / (1 + power)  # steps below it shrink quadratically, until all is rounding
    for _ in range(100):
        force = pull * b ** (1 - power)
        system = matrix * b * b[:, None]
        gradient = system.sum(axis=1) - force
        system[diagonal, diagonal] += power * force
        step = solve_positive(system, -gradient)
        largest = np.abs(step).max()
        if largest > regime:
            step *= _damping(matrix, pull, power, b, step, float(gradient @ step))
        b = b * (1 + step)
        if largest < 1e-8 or (before < regime and largest > before / 2):
            break
        before = largest
    return b


def _damping(
    matrix: np.ndarray, pull: np.ndarray, power: float, b: np.ndarray, step: np.ndarray, slope: float
) -> float:
    """A fraction of ``step`` that stays positive and lowers the potential by Armijo's rule."""

    def potential(b: np.ndarray) -> float:
        gain = np.log(b) if power == 1 else (b ** (1 - power) - 1) / (1 - power)
        return float(b @ matrix @ b / 2 - pull @ gain)

    start = potential(b)
    fraction = min(1.0, 0.9 / max(-float(step.min()), 1e-300))
    while fraction > 1e-10 and potential(b * (1 + fraction * step)) > start + 0.1 * fraction * slope:
        fraction /= 2
    return fraction


def _by_progress(matrix: np.ndarray, pull: np.ndarray, alpha: float) -> np.ndarray | None:
    """The same b [m] by steps in ``u = matrix @ b > 0``, where ``b = (u / pull) ** -alpha``.

    None where u is no more than rounding: there gradients cancel.
    """
    b, diagonal = np.linalg.solve(matrix, pull), np.arange(len(pull))
    before = np.inf
    for _ in range(100):
        u = matrix @ b
        if not (u > _RIDGE * 10 * (np.abs(matrix) @ np.abs(b))).all():
            return None
        b, u = _longest(b, u, pull, alpha)
        wanted = (u / pull) ** -alpha
        system = (alpha * wanted / u)[:, None] * matrix
        system[diagonal, diagonal] += 1
        step = np.linalg.solve(system, wanted - b)
        moved = matrix @ step
        largest = alpha * np.abs(moved / u).max()
        if largest > 0.1:
            step *= _reach(b, step, u, moved, pull, alpha)
        b = b + step
        if largest < 1e-8 or (before < 0.1 and largest > before / 2):
            break
        before = largest
    wanted = (matrix @ b / pull) ** -alpha
    return np.where(b > 1e-8 * b.max(), b, wanted)


def _longest(b: np.ndarray, u: np.ndarray, pull: np.ndarray, alpha: float) -> tuple[np.ndarray, np.ndarray]:
    """b and u, times what is best along their ray."""
    progress = u / pull
    least = progress.min()
    total = float(pull @ (progress / least) ** (1 - alpha))
    scale = (total * least**2 / float(b @ u)) ** (1 / (1 + alpha)) / least
    return b * scale, u * scale


def _reach(
    b: np.ndarray, step: np.ndarray, u: np.ndarray, moved: np.ndarray, pull: np.ndarray, alpha: float
) -> float:
    """A fraction of ``step`` that keeps u positive and lowers the potential by Armijo's rule."""

    def potential(t: float) -> float:
        progress = (u + t * moved) / pull
        return float((b + t * step) @ (u + t * moved) / 2 + pull @ progress ** (1 - alpha) / (alpha - 1))

    start = potential(0.0)
    slope = float((b - (u / pull) ** -alpha) @ moved)
    fraction = min(1.0, 0.9 / max(-float((moved / u).min()), 1e-300))
    while fraction > 1e-10 and not potential(fraction) <= start + 0.1 * fraction * slope:
        fraction /= 2
    return fraction
