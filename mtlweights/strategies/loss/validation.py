"""Weights from validation shortfalls (after Yun and Cho 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above


class ValidationShortfall(LossStrategy):
    """Weights follow each task's validation shortfall, re-set every epoch.

    ``w_i = T a_i / sum_k a_k`` with ``a_i = (1 - k_i / (1 + margin))^gamma``, where k_i is task i's
    last validation score, clipped to [0, 1] (1 = target reached, 0 = untrained); ones until the
    first scores. The weights sum to T.

    H. Yun, H. Cho, "Achievement-Based Training Progress Balancing for Multi-Task Learning", ICCV
    2023, https://doi.org/10.1109/ICCV51070.2023.01553: the weight is the paper's, with its *task
    potential* (the accuracy of a single-task model) as our target and so its *achievement* as our
    score, in its arithmetic form (AMTL-A of the authors' code, normalised by the sum). The margin
    is also what keeps a task at its target from starving: it keeps
    ``(margin / (1 + margin))^gamma`` of the a of an untrained one, 0.23 % by default. Earlier rules
    of the same kind: M. Guo et al., "Dynamic Task Prioritization for Multitask Learning", ECCV 2018
    (a focal weight on accuracy); S. Jean, O. Firat, M. Johnson, "Adaptive Scheduling for Multi-Task
    Learning", 2018, https://arxiv.org/abs/1909.06434 (over-samples tasks below their baseline).

    Departures, ours: the sum is T, not 1; scores are measured from the untrained model, not from 0,
    and clipped; the last score counts alone, where the authors' code takes a moving average (new
    score 0.1); their preferred form is a weighted geometric mean of the losses and a softmax of a.
    A task without a score (NaN) keeps its last one; one that never had any keeps weight 1, and the
    others share the rest.

    Args:
        n_tasks: T.
        gamma: > 0, how sharply weights follow the shortfall (authors' code: 2).
        margin: > 0, how far above its target a task is aimed (authors' code: 0.05).
    """

    paper = "after Yun and Cho 2023, https://doi.org/10.1109/ICCV51070.2023.01553"
    family = "validation"
    space = {"gamma": (0.5, 4.0, "log"), "margin": (0.01, 1.0, "log")}  # noqa: RUF012
    needs = ("end_epoch",)
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    score: Tensor
    weight: Tensor

    def __init__(self, n_tasks: int, *, gamma: float = 2.0, margin: float = 0.05) -> None:
        super().__init__(n_tasks)
        check_above(0, gamma=gamma, margin=margin)
        self.gamma = gamma
        self.margin = margin
        self.register_buffer("score", torch.full((n_tasks,), float("nan")))
        self.register_buffer("weight", torch.ones(n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]."""
        weight = self.weight[present]
        return (weight * losses).sum()

    @torch.no_grad()
    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Takes the validation ``scores`` [T] and sets the next epoch's weights."""
        if scores is None:
            return
        new = torch.as_tensor(scores).to(self.score)
        self.score.copy_(torch.where(torch.isnan(new), self.score, new))
        scored = ~torch.isnan(self.score)
        achieved = torch.where(scored, self.score.clamp(0, 1), torch.ones_like(self.score))
        shortfall = torch.where(scored, (1 - achieved / (1 + self.margin)) ** self.gamma, 0)
        share = scored.sum() * shortfall / shortfall.sum()
        self.weight.copy_(torch.where(scored, share, torch.ones_like(share)))
