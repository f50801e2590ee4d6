"""Linear programmes on the simplex."""

from __future__ import annotations

import numpy as np

#: m above which the interior-point method takes less time than the simplex method
_FEW = 64


def best_on_simplex(gain: np.ndarray, rows: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    """The b [m] of the simplex with the largest ``gain @ b`` and ``rows @ b >= bound``, or None.

    In closed form for m <= 2, else by HiGHS through scipy. Both want numbers of about 1, and let a
    condition be missed by 1e-7. Of equally good points of two tasks, the middle.
    """
    m = len(gain)
    if m == 1:
        return np.ones(1)
    if m == 2:
        return _of_two(gain, rows, bound)
    from scipy.optimize import linprog

    method = "highs" if m <= _FEW else "highs-ipm"
    done = linprog(-gain, A_ub=-rows, b_ub=-bound, A_eq=np.ones((1, m)), b_eq=[1.0], method=method)
    if done.x is None:
        return None
    b = np.maximum(done.x, 0.0)
    return b / b.sum()


def _of_two(gain: np.ndarray, rows: np.ndarray, bound: np.ndarray) -> np.ndarray | None:
    low, high = 0.0, 1.0
    for (first, second), least in zip(rows.tolist(), bound.tolist(), strict=True):
        slope, least = first - second, least - second
        if slope > 0:
            low = max(low, (least - 1e-12) / slope)
        elif slope < 0:
            high = min(high, (least - 1e-12) / slope)
        elif least > 1e-12:
            return None
    if low > high:
        return None
    slope = float(gain[0] - gain[1])
    share = (low + high) / 2 if slope == 0 else high if slope > 0 else low
    return np.array([share, 1 - share])
