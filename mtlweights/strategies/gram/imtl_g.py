"""IMTL-G, the gradient half of impartial multi-task learning (Liu et al. 2021)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import cosines_and_norms, equal_cosines


class IMTLG(GramStrategy):
    """IMTL-G: the combination whose projections on all task gradients are equal.

    ``sum_i w_i = 1`` and ``d . g_i / |g_i|`` is the same for all i. For T = 2,
    ``w = (|g_2|, |g_1|) / (|g_1| + |g_2|)``; in general ``w_i`` is proportional to
    ``(C^+ 1)_i / |g_i|``, C being the cosine matrix. Weights may be negative.

    L. Liu, Y. Li, Z. Kuang, J.-H. Xue, Y. Chen, W. Yang, Q. Liao, W. Zhang, "Towards Impartial
    Multi-task Learning", ICLR 2021, https://openreview.net/forum?id=IMPnRXEWpvr, section 3.1.

    Departure: for T >= 3 the sum before normalisation can be negative, and the paper's formula then
    *ascends* every loss, which public code does. Here it is divided by the size of the sum, so that
    the projections are equal and not negative; the weights then sum to -1. Where no direction has
    equal projections other than zero (opposed gradients, or one that is zero) d is zero, the limit
    of the formula.
    """

    paper = "Liu et al. 2021, https://openreview.net/forum?id=IMPnRXEWpvr"
    family = "gramian"
    space = {}  # noqa: RUF012
    signed_weights = True
    properties = frozenset({"non_conflicting", "permutation_equivariant", "zero_at_stationary"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m] of either sign, summing to 1 (or -1, see the class)."""
        return impartial(gram)


def impartial(gram: np.ndarray) -> np.ndarray:
    """IMTL-G's weights [m] for a Gramian [m, m]."""
    cosines, norms = cosines_and_norms(gram)
    zero = norms == 0
    if zero.any():
        return np.where(zero, 1 / zero.sum(), 0.0)
    inverse = norms.min() / norms
    if len(gram) == 2:
        return inverse / inverse.sum()
    x, cancelling = equal_cosines(cosines)
    # What cancels would have an infinite share; all the weight on it is the limit.
    cancels = np.abs(cancelling).max() > 1e-6
    w = inverse * (cancelling if cancels else x)
    # Weights that cancel may sum to zero: made larger, they would only blow up rounding errors.
    return w / max(abs(w.sum()), (1e-6 if cancels else 1e-12) * np.abs(w).sum())
