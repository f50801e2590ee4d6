"""Achievement-based multi-task loss (Yun and Cho 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, check_share
from .dtp import moving_average
from .positive import masked_softmax, positive_logs, usable


class AchievementLoss(LossStrategy):
    """AMTL-G: a geometric mean of the losses, weighted by each task's validation shortfall.

    ``L = prod_i l_i^(w_i)``, ``w = softmax(a)`` over the tasks present and
    ``a_i = (1 - k_i / (1 + margin))^gamma`` with k_i the moving average of task i's validation score, clipped
    to [0, 1] (1 = target reached, 0 = untrained). Also registered as ``amtl``.

    H. Yun, H. Cho, "Achievement-Based Training Progress Balancing for Multi-Task Learning", ICCV 2023,
    https://doi.org/10.1109/ICCV51070.2023.01553, in its preferred form; its *potential*, the accuracy of a
    single-task model, is our target, so its *achievement* is our score. The arithmetic form, normalised
    by the sum, is ``validation``. As a is in [0, 1], the softmax weights differ at most by the factor e.

    Departures: scores are measured from the untrained model, not from 0, and clipped. A task without a
    score (NaN) keeps its average; one that never had any counts as untrained. A loss of 0 is
    left out of its step, with weight 0; a negative one is refused.

    Args:
        n_tasks: T.
        gamma: > 0, how sharply weights follow the shortfall (authors' code: 2).
        margin: > 0, how far above its target a task is aimed (authors' code: 0.05).
        rate: in (0, 1], the share of a new score in the average (authors' code: 0.1); the first is taken
            whole.
    """

    paper = "Yun and Cho 2023, https://doi.org/10.1109/ICCV51070.2023.01553"
    family = "validation"
    space = {"gamma": (0.5, 4.0, "log"), "margin": (0.01, 1.0, "log")}  # noqa: RUF012
    needs = ("end_epoch",)
    positive_losses = True
    properties = frozenset({"permutation_equivariant"})

    score: Tensor

    def __init__(self, n_tasks: int, *, gamma: float = 2.0, margin: float = 0.05, rate: float = 0.1) -> None:
        super().__init__(n_tasks)
        check_above(0, gamma=gamma, margin=margin)
        check_share(rate=rate)
        self.gamma, self.margin, self.rate = gamma, margin, rate
        self.register_buffer("score", torch.full((n_tasks,), float("nan")))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted geometric mean of ``losses`` [m]; 0 if none is positive."""
        score = self.score[present]
        shortfall = (1 - torch.nan_to_num(score).to(losses.dtype) / (1 + self.margin)) ** self.gamma
        positive = usable(losses)
        exponent = masked_softmax(shortfall, positive)
        mean = torch.exp((exponent * positive_logs(losses)).sum())
        return torch.where(positive.any(), mean, 0.0)

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Takes the validation ``scores`` [T] into the averages."""
        if scores is not None:
            self.score.copy_(moving_average(self.score, scores, self.rate))
