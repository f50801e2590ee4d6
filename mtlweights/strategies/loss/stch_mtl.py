"""Smooth Tchebycheff scalarisation (Lin et al. 2024), as in its code for multi-task networks."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_above, check_whole
from .positive import positive_logs, usable


class SmoothTchebycheffMTL(LossStrategy):
    """STCH for networks: a smooth maximum of the log losses, each relative to its level early on.

    For ``warmup`` epochs and one more ``L = sum_i log l_i``; the mean losses of that one more are the
    nadir nu, and from then on ``L = m mu log sum_i exp(log(l_i / nu_i) / mu)`` over the m tasks present,
    with weights ``m softmax(log(l / nu) / mu)_i / l_i``. With mu = 1 it is ``m log sum_i l_i / nu_i``: far
    from a maximum, which takes a small mu.

    X. Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective Optimization", ICML 2024,
    https://arxiv.org/abs/2402.19078: the authors' code for its multi-task experiments, also in LibMTL.
    The formula in the paper's text is ``stch``. Their code subtracts the largest term from the objective's
    value, which leaves the gradient as it is.

    A task not seen in the nadir's epoch gets its nadir in the first later one that has it; until then
    ``l_i / nu_i`` counts as 1. A loss of 0 is left out of its step, with weight 0; a negative
    one is refused.

    Args:
        n_tasks: T.
        mu: > 0; towards 0 only the task with the largest ratio counts.
        warmup: epochs before the one that sets the nadir, a whole number >= 0 (authors: 4).
    """

    paper = "Lin et al. 2024, https://arxiv.org/abs/2402.19078"
    family = "loss"
    space = {"mu": (0.01, 10.0, "log")}  # noqa: RUF012
    needs = ("end_epoch",)
    scale_degree = 0
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    epoch: Tensor  # epochs ended
    nadir: Tensor

    def __init__(self, n_tasks: int, *, mu: float = 1.0, warmup: int = 4) -> None:
        super().__init__(n_tasks)
        check_above(0, mu=mu)
        check_whole(0, warmup=warmup)
        self.mu, self.warmup = mu, warmup
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("nadir", torch.full((n_tasks,), float("nan")))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The sum of logs or their smooth maximum, [], on ``losses`` [m]."""
        logs = positive_logs(losses)
        nadir = self.nadir[present]
        reference = torch.where(nadir > 0, torch.log(nadir), logs.detach())
        positive = usable(losses)
        # The lowest finite number and not -inf: the gradient stays defined where no loss is positive.
        terms = torch.where(positive, (logs - reference) / self.mu, torch.finfo(losses.dtype).min)
        smooth = len(losses) * self.mu * torch.logsumexp(terms, 0)
        smooth = torch.where(positive.any(), smooth, 0.0)
        return torch.where(self.epoch > self.warmup, smooth, logs.sum())

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Counts the epoch; takes ``mean_losses`` [T] as the nadir when the warm-up is over."""
        if int(self.epoch) >= self.warmup:
            mean = torch.as_tensor(mean_losses).to(self.nadir)
            self.nadir.copy_(torch.where(torch.isnan(self.nadir), mean, self.nadir))
        self.epoch += 1
