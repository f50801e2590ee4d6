"""UPGrad (Quinton and Rey 2024)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import dual_cone


class UPGrad(GramStrategy):
    """UPGrad: each gradient projected to where no task's loss rises, then averaged.

    ``d = mean_i P(g_i)``, P being the projection on the cone ``{x: g_j . x >= 0 for all j}``. No
    task's loss rises to first order, without conflict d is the mean gradient, and scaling one
    loss scales its part of d: the direction is linear in such scales. For T = 2 it is half of
    PCGrad.

    P. Quinton, V. Rey, "Jacobian Descent for Multi-Objective Optimization", 2024,
    https://arxiv.org/abs/2406.16232, section 3 and proposition 1.

    The T quadratic programmes are solved exactly on the cosines of the gradients. Public code falls
    back to the mean gradient below an absolute norm and adds a constant to the Gramian's diagonal;
    here nothing depends on scale. Where gradients are dependent but for their rounding, weights reach 1e4:
    float32 gradients then fix d, in any order of the tasks, to about 1e-4 of its length.
    """

    paper = "Quinton and Rey 2024, https://arxiv.org/abs/2406.16232"
    family = "gramian"
    space = {}  # noqa: RUF012
    most_tasks = (256, "'dualproj', which projects the mean gradient alone")
    properties = frozenset({"non_conflicting", "permutation_equivariant", "linear_under_scaling"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 1 / m."""
        return dual_cone(gram, np.eye(len(gram))).mean(axis=0)
