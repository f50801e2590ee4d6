"""FairGrad (Ban and Ji 2024)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_from_to
from ..solvers import alpha_fair


class FairGrad(GramStrategy):
    """FairGrad: alpha-fair shares of progress, from the plain sum to max-min fairness.

    d maximises ``sum_i (g_i . d)^(1 - alpha) / (1 - alpha)`` in a ball, and its weights solve
    ``(G w)_i = w_i^(-1/alpha)``, w > 0. alpha = 1 is Nash-MTL, alpha towards 0 the sum of the
    gradients, large alpha max-min fairness. It descends for every task. Losses times c multiply the
    direction by ``c^((1 - alpha) / (1 + alpha))``, which is the attribute ``scale_degree``.

    H. Ban, K. Ji, "Fair Resource Allocation in Multi-Task Learning", ICML 2024,
    https://arxiv.org/abs/2402.15638, algorithm 1.

    The equation is solved up to the rounding of the products in ``G w``, by Newton's method on a convex
    potential; public code runs a least-squares solver with absolute tolerances from w = 1/T, which stops
    far away for small gradients. The authors' code also multiplies by T and clips the gradient to norm 1:
    both left to the loop. As in it, heads get their plain gradients. Where gradients cancel, d is zero
    (see `solvers.alpha_fair`).

    Args:
        n_tasks: T.
        alpha: from 0.1 to 100. The default is that of the authors' scripts; the method's class in
            their code has 1.

    Raises ValueError for alpha out of range.
    """

    paper = "Ban and Ji 2024, https://arxiv.org/abs/2402.15638"
    family = "gramian"
    space = {"alpha": (0.5, 5.0, "log")}  # noqa: RUF012
    scale_degree = -1 / 3
    properties = frozenset({"non_conflicting", "permutation_equivariant"})

    def __init__(self, n_tasks: int, *, alpha: float = 2.0) -> None:
        super().__init__(n_tasks)
        check_from_to(0.1, 100, alpha=alpha)
        self.alpha = alpha
        self.scale_degree = (1 - alpha) / (1 + alpha)

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], positive."""
        return alpha_fair(gram, self.alpha)
