"""DualProj, the projection of gradient episodic memory (Lopez-Paz and Ranzato 2017)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..solvers import dual_cone


class DualProj(GramStrategy):
    """DualProj: the mean gradient, moved as little as needed for no task's loss to rise.

    d is the projection of ``mean_i g_i`` on the cone ``{x: g_j . x >= 0 for all j}``.

    D. Lopez-Paz, M. Ranzato, "Gradient Episodic Memory for Continual Learning", NeurIPS 2017,
    https://arxiv.org/abs/1706.08840, equations 8 to 11. There it is the current task's gradient that
    is projected, and the others are past tasks; projecting the mean for tasks learned together
    follows P. Quinton, V. Rey, 2024, https://arxiv.org/abs/2406.16232.

    The paper's optional margin on the multipliers is left out.
    """

    paper = "Lopez-Paz and Ranzato 2017, https://arxiv.org/abs/1706.08840"
    family = "gramian"
    space = {}  # noqa: RUF012
    properties = frozenset({"non_conflicting", "permutation_equivariant"})

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 1 / m."""
        m = len(gram)
        return dual_cone(gram, np.full((1, m), 1 / m))[0]
