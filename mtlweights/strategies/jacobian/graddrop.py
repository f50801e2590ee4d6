"""GradDrop, gradient sign dropout (Chen et al. 2020)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import per_task, shown
from . import blockwise


class GradDrop(JacobianStrategy):
    """GradDrop: every element is left to the gradients of one sign, drawn at random.

    For an element with gradients g_i, ``p = (1 + sum_i g_i / sum_i |g_i|) / 2`` is the chance that those
    above 0 stay and the others are dropped; else it is the other way round. What is dropped of task i
    still counts by the share leak_i. With no leak, d is the sum of the gradients in expectation.

    Z. Chen, J. Ngiam, Y. Huang, T. Luong, H. Kretzschmar, Y. Chai, D. Anguelov, "Just Pick a Sign:
    Optimizing Deep Multitask Models with Gradient Sign Dropout", NeurIPS 2020,
    https://arxiv.org/abs/2010.06808, with the identity as f.

    The paper works at an activation: gradients there are multiplied by the activation's sign, summed over
    the batch, and the mask goes back through one backward pass. Here, as in most public code, it works on
    the shared parameters, where no such sign is needed. The authors' layer by default also stretches the
    result to the norm of the summed gradient; here it keeps its own length, as in the paper's formula: only
    so is the expectation the sum, and norms over all parameters and over one activation are not alike. Draws
    are a function of (seed, committed step). Some public code has leak the other way round.

    Args:
        n_tasks: T.
        leak: in [0, 1], one number or one per task; 1 is the sum of the gradients.

    Raises ValueError for a leak out of range or of another length.
    """

    paper = "Chen et al. 2020, https://arxiv.org/abs/2010.06808"
    family = "element-wise"
    space = {"leak": (0.0, 1.0)}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant"})

    leak: Tensor

    def __init__(self, n_tasks: int, *, leak: float | Sequence[float] = 0.0) -> None:
        super().__init__(n_tasks)
        self.register_buffer("leak", per_task("leak", leak, n_tasks))
        if not bool(((self.leak >= 0) & (self.leak <= 1)).all()):
            raise ValueError(f"leak should be at least 0 and at most 1, found {shown(leak)}.")

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The direction [P]."""
        leak = self.leak[present].to(jacobian)
        generator = torch.Generator(jacobian.device).manual_seed(_key(self.seed, int(self.step)))
        out = torch.empty_like(jacobian[0])
        out.uniform_(generator=generator)
        for _, columns in blockwise.pieces([len(out)]):
            g = jacobian[:, columns]
            above = g.clamp(min=0)
            below = g - above
            up, down = above.sum(0), below.sum(0)
            # p > draw, without a quotient that is 0 / 0 where all gradients are 0
            stays = up > out[columns] * (up - down)
            out[columns] = leak @ g + torch.where(stays, (1 - leak) @ above, (1 - leak) @ below)
        return out


def _key(seed: int, step: int) -> int:
    """A number below 2^32 from both: torch's generator on the CPU reads no more bits of its seed."""
    return int(np.random.SeedSequence(seed % 2**64, spawn_key=(step,)).generate_state(1)[0])
