"""Awkward Gramians, and the simplex by another way."""

import numpy as np
from scipy.optimize import brentq


def awkward(m, rng):
    """Gradients [m, P] of every awkward kind, at every scale."""
    plain = rng.normal(size=(m, m + 2))
    low_rank = rng.normal(size=(m, max(1, m // 2)))
    twins = plain.copy()
    twins[-1] = twins[0]
    opposed = plain.copy()
    opposed[-1] = -opposed[0]
    near = rng.normal(size=m + 2) + 1e-6 * plain
    aligned = plain + 3 * rng.normal(size=m + 2)
    integers = np.round(plain)
    uneven = plain * 10.0 ** rng.uniform(-2, 2, size=(m, 1))
    kinds = [plain, low_rank, twins, opposed, near, aligned, integers, uneven]
    return [scale * kind for kind in kinds for scale in (1e-6, 1.0, 1e6)]


def nearest(point, total=1.0):
    """The projection on the simplex by root finding on its threshold."""
    mean = point.mean() - total / len(point)
    threshold = brentq(lambda t: np.maximum(point - t, 0).sum() - total, mean - 1, point.max(), xtol=1e-15)
    return np.maximum(point - threshold, 0)
