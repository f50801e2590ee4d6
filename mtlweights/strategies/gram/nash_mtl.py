"""Nash-MTL (Navon et al. 2022)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import alpha_fair


class NashMTL(GramStrategy):
    """Nash-MTL: the Nash bargaining solution between the tasks.

    The weights solve ``(G w)_i = 1 / w_i``, w > 0: of all directions of a given length, d maximises
    ``sum_i log(g_i . d)``. It descends for every task, ``|d| = sqrt(T)``, and no loss's scale
    matters. For T = 2, ``w_i = 1 / (|g_i| sqrt(1 + cos))``.

    A. Navon, A. Shamsian, I. Achituve, H. Maron, K. Kawaguchi, G. Chechik, E. Fetaya, "Multi-Task
    Learning as a Bargaining Game", ICML 2022, https://arxiv.org/abs/2202.01017, claim 3.1 and
    equation 2.

    The solution is exact, by Newton's method on the convex potential ``w G w / 2 - sum log w``; the
    paper's code linearises one constraint at a time, keeps the last step's weights where that
    fails, and can return all ones. That code also clips the shared gradient to norm 1, which as
    ``|d| = sqrt(T)`` always only divides it by sqrt(T); that belongs to the learning rate. To solve less
    often than every step, give the Balancer ``every=``. As in the authors' code the heads are
    weighted too. The paper has no solution where gradients cancel: d is zero there (see
    `solvers.alpha_fair`).
    """

    paper = "Navon et al. 2022, https://arxiv.org/abs/2202.01017"
    family = "gramian"
    space = {}  # noqa: RUF012
    heads = "weighted"
    scale_degree = 0
    properties = frozenset({"non_conflicting", "permutation_equivariant", "loss_scale_invariant"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], positive."""
        return alpha_fair(gram, 1.0)
