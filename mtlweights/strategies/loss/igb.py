"""Improvable gap balancing, first version (Dai, Fei, Lu 2023)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_whole
from .positive import masked_softmax, positive_logs, usable


class ImprovableGapBalancing(LossStrategy):
    """IGB v1: more weight to tasks further from a desired loss of 0, measured by an early loss.

    ``L = sum_i w_i log l_i`` with ``w = m softmax(l_i / l_i(base))``, a constant in the step, over the m
    tasks present; l_i(base) is the mean loss of epoch ``base``, and w is all ones up to its end.

    Y. Dai, N. Fei, Z. Lu, "Improvable Gap Balancing for Multi-Task Learning", UAI 2023,
    https://arxiv.org/abs/2307.15429. The weight of l_i itself is ``w_i / l_i``. The paper's second version,
    which learns the weights with an actor and critics, is not here.

    A task not seen in that epoch gets its base in the first later one that has it; until then, and where
    the base is not positive, its ratio counts as 1. A loss of 0 is left out of its step, with weight 0; a
    negative one is refused.

    Args:
        n_tasks: T.
        base: the epoch, from 0, whose mean losses are the base (authors' code: 1).
    """

    paper = "Dai, Fei, Lu 2023, https://arxiv.org/abs/2307.15429"
    family = "loss"
    space = {"base": (0, 3)}  # noqa: RUF012
    needs = ("end_epoch",)
    scale_degree = 0
    positive_losses = True
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    epoch: Tensor  # epochs ended
    base_loss: Tensor

    def __init__(self, n_tasks: int, *, base: int = 1) -> None:
        super().__init__(n_tasks)
        check_whole(0, base=base)
        self.base = base
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))
        self.register_buffer("base_loss", torch.full((n_tasks,), float("nan")))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of the logs of ``losses`` [m]."""
        base = self.base_loss[present]
        known, values = base > 0, losses.detach()
        ratio = torch.where(known, values / torch.where(known, base, 1.0), 1.0)
        ratio = ratio.clamp(max=torch.finfo(ratio.dtype).max)
        positive = usable(values)
        weight = positive.sum() * masked_softmax(ratio, positive)
        return (weight * positive_logs(losses)).sum()

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Counts the epoch; takes ``mean_losses`` [T] as the base when its epoch ends."""
        if int(self.epoch) >= self.base:
            mean = torch.as_tensor(mean_losses).to(self.base_loss)
            self.base_loss.copy_(torch.where(torch.isnan(self.base_loss), mean, self.base_loss))
        self.epoch += 1
