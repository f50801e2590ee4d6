"""AdaTask (Yang et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import decays
from . import blockwise


class AdaTask(JacobianStrategy):
    """AdaTask: Adam with moments of its own for every task on the shared parameters.

    With m_i and v_i the moving averages of g_i and g_i squared, element by element, and hats for the
    division by ``1 - beta ** k``, k the steps of task i,

    ``d = sum_i mhat_i / sqrt(vhat_i)``.

    E. Yang, J. Pan, X. Wang, H. Yu, L. Shen, X. Chen, L. Xiao, J. Jiang, G. Guo, "AdaTask: A Task-aware
    Adaptive Learning Rate Approach to Multi-task Learning", AAAI 2023, https://arxiv.org/abs/2211.15055,
    there also for RMSProp and AdaGrad; ``betas=(0, b)`` is RMSProp with bias correction.

    AutoBalance (2025, https://arxiv.org/abs/2510.06684), known from physics-informed networks, is the same
    rule: an Adam for each loss, whose updates are added. ``autobalance`` is another name of it.

    d already is Adam's step, so the shared parameters want SGD without momentum, with a learning rate for
    Adam. Heads get plain gradients; the paper gives them an Adam of their own. Departures: no constant is
    added to the root, so no scale of a loss matters, and an element that has had no gradient stays; k is
    counted per task and parameter tensor, so a task that missed steps, or a tensor that is shared only
    later, is corrected for the steps it had. The root of v_i is what is kept: squares of small gradients do
    not underflow.

    Args:
        n_tasks: T.
        betas: two numbers in [0, 1), how much of the two averages is kept.

    Raises ValueError for betas out of range.
    """

    paper = "Yang et al. 2023, https://arxiv.org/abs/2211.15055"
    family = "gradient norm"
    space = {}  # noqa: RUF012
    scale_degree = 0
    replaces_optimizer = True
    row_state = ("means", "roots")
    tensor_state = ("counts",)
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def __init__(self, n_tasks: int, *, betas: Sequence[float] = (0.9, 0.999)) -> None:
        super().__init__(n_tasks)
        self.first, self.second = decays("betas", betas)

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The direction [P]."""
        counts = self.rows["counts"] + 1
        age = counts.to(blockwise.wide(counts.device))
        correction = ((1 - self.second**age).sqrt() / (1 - self.first**age)).to(jacobian)
        means, roots = torch.empty_like(jacobian), torch.empty_like(jacobian)
        out = torch.empty_like(jacobian[0])
        for k, columns in blockwise.pieces(self.sizes):
            g = jacobian[:, columns]
            mean = torch.mul(self.rows["means"][:, columns], self.first, out=means[:, columns])
            mean.add_(g, alpha=1 - self.first)
            before = self.second**0.5 * self.rows["roots"][:, columns]
            root = torch.hypot(before, (1 - self.second) ** 0.5 * g, out=roots[:, columns])
            out[columns] = correction[:, k] @ torch.where(root > 0, mean / root, 0.0)
        self.rows["means"], self.rows["roots"], self.rows["counts"] = means, roots, counts
        return out
