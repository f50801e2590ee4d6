"""NTKMTL (Qin et al. 2025)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_from_to
from ..solvers import equal_norms


class NTKMTL(GramStrategy):
    """NTKMTL: the tasks' tangent kernels brought to one size, so that all converge at one speed.

    ``w_i = (sum_k G_kk / G_ii)^exponent``: with the default of 1/2, the sum of the unit gradients, times the
    root of the sum of all squared norms.

    X. Qin, X. Wang, N. Liao, J. Yan, "NTKMTL: Mitigating Task Imbalance in Multi-Task Learning from Neural
    Tangent Kernel Perspective", NeurIPS 2025, https://arxiv.org/abs/2510.18258.

    The paper weighs by the largest eigenvalue of each task's kernel over n parts of the batch. This is n = 1,
    where the kernel is one number, the squared norm, as in all runs of the authors' code. That code also
    multiplies d by T and clips it to norm 1: both left to the loop. NTKMTL-SR, which takes the gradients at
    the representation, is ``Balancer(gradients="features")``. Heads get plain gradients, as there. A gradient
    of zero has weight 0.

    Args:
        n_tasks: T.
        exponent: from 0 to 1; 0 is the plain sum.

    Raises ValueError for an exponent out of range.
    """

    paper = "Qin et al. 2025, https://arxiv.org/abs/2510.18258"
    family = "gradient norm"
    space = {"exponent": (0.0, 1.0)}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, exponent: float = 0.5) -> None:
        super().__init__(n_tasks)
        check_from_to(0, 1, exponent=exponent)
        self.exponent = exponent

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0."""
        norms = np.sqrt(np.diagonal(gram))
        return np.asarray(equal_norms(norms, float(np.linalg.norm(norms))) ** (2 * self.exponent))
