"""EPO search, exact Pareto optimality for a preference (Mahapatra and Rajan 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import preference_vector
from ..solvers import best_on_simplex

#: Non-uniformity below which the losses count as balanced (the authors' code).
_BALANCED = 1e-4


class EPO(GramStrategy):
    """EPO: to the Pareto-optimal point whose losses are in the wanted proportion.

    With r the preference, the aim is a point of the Pareto front where all ``r_i l_i`` are equal. With
    ``q = r l / sum(r l)``, the non-uniformity is ``mu = sum_i q_i log(T q_i)`` and the adjustment
    ``a_i = r_i (log(T q_i) - mu)``. The weights are T times the b of the simplex that maximises

    - off balance: ``b . G a``, with ``(G b)_j >= 0`` for the largest ``r_j l_j``, ``(G b)_j >= (G a)_j``
      for other j where ``(G a)_j <= 0``, and free elsewhere (all ``>= 0`` if no ``(G a)_j > 0``);
    - in balance (mu <= 1e-4): ``sum_j (G b)_j``, with ``G b >= 0`` and ``b . G a >= min(max_j (G a)_j, 0)``.

    D. Mahapatra, V. Rajan, "Multi-Task Learning with User Preferences: Gradient Descent with
    Controlled Ascent in Pareto Optimization", ICML 2020,
    https://proceedings.mlr.press/v119/mahapatra20a.html, equations 24 and 25; D. Mahapatra, V. Rajan,
    "Exact Pareto Optimal Search for Multi-Task Learning and Multi-Criteria Decision-Making", 2021,
    https://arxiv.org/abs/2108.00597.

    The rule, the threshold, the factor T and the weighted heads follow the authors' code. Where the
    programme has no solution, ``b = r / sum(r)``, as there. A loss of zero counts as the least share
    a float64 can tell.

    Args:
        n_tasks: T.
        preference: T positive numbers r. Default: all ones, that is equal losses.

    Raises ValueError for an unusable ``preference``. A negative loss is refused: proportions need a zero.
    """

    paper = "Mahapatra and Rajan 2020, https://proceedings.mlr.press/v119/mahapatra20a.html"
    family = "gramian"
    space = {}  # noqa: RUF012
    heads = "weighted"
    positive_losses = True
    most_tasks = (256, "'stch' with a preference, which is loss-based")
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor

    def __init__(self, n_tasks: int, *, preference: Sequence[float] | None = None) -> None:
        super().__init__(n_tasks)
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0, positive=True))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0, summing to m."""
        preference = self.preference.numpy()
        r = preference[present]
        largest = np.diagonal(gram).max()
        gram = gram / largest if largest > 0 else gram
        b = self._solve(gram, r * np.maximum(losses, 0), r)
        return len(gram) * (r / r.sum() if b is None else b)

    def _solve(self, gram: np.ndarray, weighted: np.ndarray, r: np.ndarray) -> np.ndarray | None:
        m, total = len(gram), weighted.sum()
        share = weighted / total if total > 0 else np.full(m, 1 / m)
        logs = np.log(m * np.maximum(share, np.finfo(np.float64).eps))
        mu = float(share @ logs)
        pull = gram @ (r * (logs - mu))
        if mu <= _BALANCED:
            return best_on_simplex(
                gram.sum(axis=0), np.vstack([gram, pull]), np.append(np.zeros(m), min(pull.max(), 0.0))
            )
        bound = np.where(pull > 0, -np.inf, pull) if (pull > 0).any() else np.zeros(m)
        bound[weighted == weighted.max()] = 0.0
        held = bound > -np.inf
        return best_on_simplex(pull, gram[held], bound[held])
