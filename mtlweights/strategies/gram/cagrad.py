"""CAGrad (Liu et al. 2021)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_choice, check_fraction
from ..solvers import conflict_averse

_RESCALE = ("none", "1+c", "1+c^2")


class CAGrad(GramStrategy):
    """CAGrad: the best worst-case progress within a ball around the mean gradient.

    With ``g_0 = mean_i g_i``, d maximises ``min_i g_i . d`` over ``|d - g_0| <= c |g_0|``. By
    duality ``d = g_0 + c |g_0| g_w / |g_w|``, ``g_w = sum_i w_i g_i``, with w minimising
    ``g_w . g_0 + c |g_0| |g_w|`` over the simplex. c = 0 is the mean gradient.

    B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu, "Conflict-Averse Gradient Descent for Multi-task
    Learning", NeurIPS 2021, https://arxiv.org/abs/2110.14048, equation 4 and algorithm 1.

    The solver is exact (see `solvers.conflict_averse`); public code uses SLSQP or a conic solver
    with absolute tolerances, and returns zero or near uniform w for small gradients. Where
    ``g_w = 0`` is optimal the paper's formula has no value: d is then the nearest vector to g_0 that
    raises no loss, which solves the paper's primal problem. The direction keeps moving where
    gradients are opposed but their mean is not zero: for c < 1 its fixed points are those of the
    mean loss. A task alone gets ``(1 + c) g``.

    Args:
        n_tasks: T.
        c: in [0, 1), radius of the ball over ``|g_0|``.
        rescale: what d is divided by. "none": the paper. "1+c^2": the authors' code (which also
            multiplies by T). "1+c": their two-dimensional example.

    Raises ValueError for c out of range or an unknown ``rescale``.
    """

    paper = "Liu et al. 2021, https://arxiv.org/abs/2110.14048"
    family = "gramian"
    space = {"c": (0.0, 0.95)}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, c: float = 0.5, rescale: str = "none") -> None:
        super().__init__(n_tasks)
        check_fraction(c=c)
        check_choice(_RESCALE, rescale=rescale)
        self.c, self.rescale = c, rescale

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 1 / m before rescaling."""
        divisor = {"none": 1.0, "1+c": 1 + self.c, "1+c^2": 1 + self.c**2}[self.rescale]
        return conflict_averse(gram, self.c) / divisor
