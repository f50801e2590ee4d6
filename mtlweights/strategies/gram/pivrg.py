"""PIVRG, performance-informed variance reduction (Qin, Wang, Yan 2025)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above
from ..solvers import alpha_fair


class PIVRG(GramStrategy):
    """PIVRG: fair shares of progress, larger for tasks that are further from their single-task level.

    The weights solve ``(G w)_i = (p_i / w_i)^(1/2)``, w > 0: FairGrad's with alpha = 2 and a preference

    ``p = T softmax(s / tau)``, ``tau = max((max_i s_i - min_i s_i) / log(limit), temperature)``,

    with s_i the shortfall of task i, 1 less its last validation score. So no preference is more than
    ``limit`` times another; all are 1 until there are scores.

    X. Qin, X. Wang, J. Yan, "Revisiting Fairness in Multitask Learning: A Performance-Driven Approach for
    Variance Reduction", CVPR 2025, https://openaccess.thecvf.com/content/CVPR2025/html/
    Qin_Revisiting_Fairness_in_Multitask_Learning_A_Performance-Driven_Approach_for_Variance_CVPR_2025_paper.html.

    Departures: in the authors' code s_i is the loss in percent of the single-task model's metric, on the
    training set; here it is in shares of the way from the untrained model to the target, on validation data,
    and ``temperature`` is their ``mintemp`` of 10 per cent. The equation is solved as in `fairgrad`, exactly;
    their factor T and the clipping of d to norm 1 are left to the loop. Heads get plain gradients, as there.
    A task without a score has preference 1; the others share the rest.

    Args:
        n_tasks: T.
        limit: > 1, the largest ratio of two preferences.
        temperature: > 0, the least tau.

    Raises ValueError for a number out of range.
    """

    paper = "Qin, Wang, Yan 2025, https://github.com/jianke0604/MTLlib"
    family = "validation"
    space = {"limit": (1.1, 10.0, "log"), "temperature": (0.02, 1.0, "log")}  # noqa: RUF012
    needs = ("end_epoch",)
    scale_degree = -1 / 3
    properties = frozenset({"non_conflicting", "permutation_equivariant"})

    score: Tensor
    weight: Tensor  # p, the preferences

    def __init__(self, n_tasks: int, *, limit: float = 2.0, temperature: float = 0.1) -> None:
        super().__init__(n_tasks)
        check_above(1, limit=limit)
        check_above(0, temperature=temperature)
        self.limit, self.temperature = limit, temperature
        self.register_buffer("score", torch.full((n_tasks,), math.nan, dtype=torch.float64))
        self.register_buffer("weight", torch.ones(n_tasks, dtype=torch.float64))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], positive."""
        p = self.weight.numpy()[present]
        # With w = v / p the equation is FairGrad's for the gradients g_i / p_i.
        return alpha_fair(gram / p / p[:, None], 2.0) / p

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Takes the validation ``scores`` [T] and sets the next epoch's preferences."""
        if scores is None:
            return
        score = self.score.numpy()
        score[:] = np.where(np.isnan(scores), score, scores)
        known = ~np.isnan(score)
        if known.any():
            shortfall = 1 - score[known]
            temperature = max(np.ptp(shortfall) / math.log(self.limit), self.temperature)
            shares = np.exp((shortfall - shortfall.max()) / temperature)
            self.weight.numpy()[known] = known.sum() * shares / shares.sum()
