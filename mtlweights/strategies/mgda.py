"""The multiple-gradient descent algorithm (Desideri 2012; Sener and Koltun 2018)."""

from __future__ import annotations

import numpy as np

from .base import GramStrategy
from .solvers import min_norm

_NORMALISATIONS = ("none", "l2", "loss", "loss+")


class MGDA(GramStrategy):
    """The shortest vector among the convex combinations of the task gradients.

    ``w = argmin |sum_i w_i g_i|^2`` over ``w_i >= 0, sum_i w_i = 1``. The direction descends for
    every task, and is zero exactly at Pareto-stationary points.

    J.-A. Desideri, "Multiple-gradient descent algorithm (MGDA) for multiobjective optimization",
    Comptes Rendus Mathematique 350, 2012, https://doi.org/10.1016/j.crma.2012.03.014;
    O. Sener, V. Koltun, "Multi-Task Learning as Multi-Objective Optimization", NeurIPS 2018,
    https://arxiv.org/abs/1810.04650, equation 3 and algorithm 2.

    The solver is exact (see `solvers.min_norm`), where the paper's is Frank-Wolfe. As in the
    authors' code, normalised gradients only serve to *find* w, which then weighs the raw ones; some
    public code also steps along the normalised ones. Heads get plain gradients, as in algorithm 2
    (the authors' code weighs them).

    Args:
        n_tasks: T.
        normalisation: what each gradient is divided by when w is sought. "none", "l2": its norm,
            "loss": its loss, "loss+": the product of both. A zero gradient stays zero.

    Raises ValueError for an unknown normalisation, and at a step whose losses are negative where
    they divide.
    """

    paper = "Sener and Koltun 2018, https://arxiv.org/abs/1810.04650"
    family = "gramian"
    space = {"normalisation": ["none", "l2", "loss", "loss+"]}  # noqa: RUF012

    def __init__(self, n_tasks: int, *, normalisation: str = "none") -> None:
        super().__init__(n_tasks)
        if normalisation not in _NORMALISATIONS:
            raise ValueError(
                f"normalisation should be one of {', '.join(_NORMALISATIONS)}, found {normalisation!r}."
            )
        self.normalisation = normalisation

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        """Weights [m], at least 0, summing to 1."""
        if self.normalisation == "none":
            return min_norm(gram)
        divisor = self._divisor(np.sqrt(np.diagonal(gram)), losses)
        divisor = np.where(divisor > 0, divisor, 1.0)
        return min_norm(gram / divisor / divisor[:, None])

    def _divisor(self, norms: np.ndarray, losses: np.ndarray) -> np.ndarray:
        if self.normalisation == "l2":
            return norms
        if losses.min() < 0:
            raise ValueError(
                f"normalisation={self.normalisation!r} needs losses of at least 0, found {losses.min()}: "
                "use 'none' or 'l2'."
            )
        return losses if self.normalisation == "loss" else losses * norms
