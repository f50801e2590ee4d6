"""GCS, auxiliary losses by gradient cosine similarity (Du et al. 2018)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_choice, check_task
from ..solvers import cosines_and_norms

_VARIANTS = ("unweighted", "weighted")


class GradientCosineSimilarity(GramStrategy):
    """GCS: an auxiliary gradient counts only where it agrees with that of the main task.

    With c_i the cosine of task i's gradient with the main one's, the main task has weight 1 and task i
    "unweighted" 1 if ``c_i >= 0``, else 0; "weighted" ``max(c_i, 0)``. So d never opposes the main gradient.

    Y. Du, W. M. Czarnecki, S. M. Jayakumar, M. Farajtabar, R. Pascanu, B. Lakshminarayanan, "Adapting
    Auxiliary Losses Using Gradient Similarity", 2018, https://arxiv.org/abs/1812.02224, algorithms 1 and 2.

    Heads get plain gradients, as in both algorithms. A gradient of zero has cosine 0 with every other. In a
    step without the main task, which the paper does not have, the others are summed. Several auxiliary tasks
    are compared with the main one each on its own.

    Args:
        n_tasks: T.
        main: index of the main task.
        variant: "unweighted" or "weighted".

    Raises ValueError for an index out of range or an unknown variant.
    """

    paper = "Du et al. 2018, https://arxiv.org/abs/1812.02224"
    family = "gramian"
    space = {"variant": [*_VARIANTS]}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    def __init__(self, n_tasks: int, *, main: int = 0, variant: str = "unweighted") -> None:
        super().__init__(n_tasks)
        check_task(n_tasks, main=main)
        check_choice(_VARIANTS, variant=variant)
        self.main, self.variant = main, variant

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], from 0 to 1."""
        main = present == self.main
        if not main.any():
            return np.ones(len(gram))
        cosines = cosines_and_norms(gram)[0][main][0]
        weights = cosines >= 0 if self.variant == "unweighted" else np.maximum(cosines, 0.0)
        return np.where(main, 1.0, weights)
