"""The multiple-gradient descent algorithm (Desideri 2012; Sener and Koltun 2018)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_choice, preference_vector
from ..solvers import min_norm

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

    Measured at the shared representation, ``Balancer("mgda", ..., gradients="features")``, it is MGDA-UB of
    that paper, and also MultiBalance (Y. He et al. 2024, https://arxiv.org/abs/2411.11871) but for the moving
    average by which that one divides each gradient.

    With a ``preference`` p the objectives are ``p_i l_i``: with a the weights of the shortest vector among
    the combinations of ``p_i g_i``, ``w_i = a_i p_i`` for the raw gradients, which sum to 1 no longer. It
    evens out the rates at which the ``p_i l_i`` fall, so where tasks compete a *larger* p_i makes l_i fall
    *slower*. This is the norm term of WC-MGDA (M. Momma, C. Dong, J. Liu, "A Multi-objective / Multi-task
    Learning Framework Induced by Pareto Stationarity", ICML 2022,
    https://proceedings.mlr.press/v162/momma22a.html), which maximises ``sum_i a_i p_i l_i`` less a multiple
    of that norm; the other term, which drives all ``p_i l_i`` to one level, is not here: for that, ``epo``.

    Args:
        n_tasks: T.
        normalisation: what each gradient is divided by when w is sought. "none", "l2": its norm,
            "loss": its loss, "loss+": the product of both. A zero gradient stays zero.
        preference: T positive numbers p, used as given. Default: all ones, plain MGDA.

    Raises ValueError for an unknown normalisation or an unusable preference. Where losses divide a negative
    one is refused.
    """

    paper = "Sener and Koltun 2018, https://arxiv.org/abs/1810.04650"
    family = "gramian"
    space = {"normalisation": ["none", "l2", "loss", "loss+"]}  # noqa: RUF012
    properties = frozenset({"non_conflicting", "permutation_equivariant", "zero_at_stationary"})

    preference: Tensor

    def __init__(
        self, n_tasks: int, *, normalisation: str = "none", preference: Sequence[float] | None = None
    ) -> None:
        super().__init__(n_tasks)
        check_choice(_NORMALISATIONS, normalisation=normalisation)
        self.normalisation = normalisation
        self.positive_losses = normalisation.startswith("loss")
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0, positive=True))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0; without a preference they sum to 1."""
        stored = self.preference.numpy()
        preference = stored[present]
        divisor = self._divisor(np.sqrt(np.diagonal(gram)), losses)
        factor = preference / np.where(divisor > 0, divisor, 1.0)
        return min_norm(gram * factor * factor[:, None]) * preference

    def _divisor(self, norms: np.ndarray, losses: np.ndarray) -> np.ndarray:
        if self.normalisation == "none":
            return np.ones(len(norms))
        if self.normalisation == "l2":
            return norms
        losses = np.maximum(losses, 0)
        return losses if self.normalisation == "loss" else losses * norms
