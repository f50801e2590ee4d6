"""PCGrad with one task per step (after Yu et al. 2020), on a running sum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..gram.pcgrad import conflicts_removed, random_orders
from ..hyperparameters import check_above
from . import blockwise


class RunningPCGrad(JacobianStrategy):
    """PCGrad against the other tasks' last steps, kept as one sum: for batches of one task, and many tasks.

    With s the sum of the steps so far and g the gradient of the task at hand, ``p = g``, or, where
    ``g . s < 0``, ``p = g - (g . s / |s|^2) s``; the direction is p, and s becomes ``decay s + p``. Of
    several tasks at hand each is first projected on the others, in random order, as in the paper, and last
    on s, so that no p has a part against it. One backward pass a step and one gradient kept, for any T.

    The rule is PCGrad's (T. Yu, S. Kumar, A. Gupta, S. Levine, K. Hausman, C. Finn, "Gradient Surgery for
    Multi-Task Learning", NeurIPS 2020, https://arxiv.org/abs/2001.06782, algorithm 1); the paper has all
    gradients at the same parameters, here those of other tasks are from earlier steps, and as a sum, in which
    two that conflict hide each other and the task's own part is. A running sum over the micro-batches of one
    step is what rslearn's ``MiniPCGrad`` has, per tensor and both ways; its projection takes off
    ``|g| |s|`` where the rule has ``-g . s``.

    Args:
        n_tasks: T.
        rounds: above 0, of steps with one task each that s remembers, ``decay = 1 - 1 / (rounds T)``, or 0
            where that is less.

    Raises ValueError for a number out of range.
    """

    paper = "after Yu et al. 2020, https://arxiv.org/abs/2001.06782"
    family = "memory"
    space = {"rounds": (0.1, 10.0, "log")}  # noqa: RUF012
    memory: ClassVar[Mapping[str, bool]] = {"sum": False}
    properties = frozenset({"linear_under_scaling"})

    def __init__(self, n_tasks: int, *, rounds: float = 1.0) -> None:
        super().__init__(n_tasks)
        check_above(0, rounds=rounds)
        self.rounds, self.decay = rounds, max(0.0, 1 - 1 / (rounds * self.n_tasks))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P], and the weights [m] of the gradients in it."""
        memory = self.rows["sum"]
        m, whole = len(jacobian), blockwise.gramian(jacobian, memory)
        packed = torch.cat([whole.flatten(), self.step[None].to(whole)]).cpu().double().numpy()
        products = packed[:-1].reshape(m + 1, m + 1)
        orders = random_orders(m, self.seed, int(packed[-1]))
        # row m is s, which each meets last
        added = conflicts_removed(products, np.column_stack([orders, np.full(m, m)]))
        weights = torch.from_numpy(added + (np.arange(m + 1) < m)).to(jacobian)
        found = weights[:m] @ jacobian + weights[m] * memory[0]
        self.rows["sum"] = self.decay * memory + found
        return found, weights[:m]
