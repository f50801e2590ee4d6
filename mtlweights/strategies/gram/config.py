"""ConFIG (Liu et al. 2024)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import cosines_and_norms, equal_cosines


class ConFIG(GramStrategy):
    """ConFIG: the direction at one angle to all gradients, as long as their projections' sum.

    With U the unit gradients, ``v = U^+ 1``, and ``d = (sum_i g_i . v) v / |v|^2``. All cosines between
    d and the gradients are equal where the gradients are independent. For T = 2,
    ``d = (|g_1| + |g_2|) (u_1 + u_2) / 2``. Weights may be negative.

    Q. Liu, M. Chu, N. Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks", ICLR 2025, https://arxiv.org/abs/2408.11104, equations 2 and 3.

    The pseudo-inverse is taken through the cosines, ``v = U' (U U')^+ 1``. The authors' code solves
    a least-squares problem by default, which is the same but where gradients are dependent. A zero
    gradient is left out. The variant with momenta is `m_config`.
    """

    paper = "Liu et al. 2024, https://arxiv.org/abs/2408.11104"
    family = "gramian"
    space = {}  # noqa: RUF012
    signed_weights = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m] of either sign."""
        return conflict_free(gram)


def conflict_free(gram: np.ndarray) -> np.ndarray:
    """Weights [m] of ConFIG's direction."""
    cosines, norms = cosines_and_norms(gram)
    weights = np.zeros(len(gram))
    some = np.flatnonzero(norms > 0)
    if not len(some):
        return weights
    cosines, norms = cosines[some[:, None], some], norms[some]
    x, _ = equal_cosines(cosines)
    projections = cosines @ x
    squared = x @ projections
    if squared > 1e-14 * (np.abs(x) @ np.abs(cosines) @ np.abs(x)):
        weights[some] = (norms @ projections) / squared * x / norms
    return weights
