"""MetaBalance (He et al. 2022)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_choice, check_fraction, check_from_to, check_task
from . import blockwise

_ADAPT = ("both", "shrink", "enlarge")


class MetaBalance(JacobianStrategy):
    """MetaBalance: auxiliary gradients are drawn to the length of the target task's, tensor by tensor.

    With m_i the moving average of the norm of task i's gradient g_i in a parameter tensor and task 0 the
    target, there

    ``d = g_0 + sum_i (r m_0 / m_i + 1 - r) g_i``.

    Y. He, X. Feng, C. Cheng, G. Ji, Y. Guo, J. Caverlee, "MetaBalance: Improving Multi-Task Recommendations
    via Adapting Gradient Magnitudes of Auxiliary Tasks", WWW 2022, https://arxiv.org/abs/2203.06801.
    r is its relax factor; its three strategies are ``adapt``: "shrink" touches only auxiliary
    gradients with m_i > m_0, "enlarge" only those with m_i < m_0, "both" is what the authors' code does.

    Averages start at 0 as in the paper, and are divided by ``1 - beta ** k``, k the steps of that
    task: this changes nothing unless tasks miss steps, where the plain ratio would be biased. Departures: a
    tensor in which the target has had no gradient is not shared with it, and auxiliary gradients stay as they
    are. So do all of them in a step without the target; their averages move. No single weight per
    task exists, so none is shown.

    Args:
        n_tasks: T.
        r: in [0, 1]; 0 is the sum of the gradients.
        beta: in [0, 1), how much of the average is kept.
        target: index of the target task.
        adapt: "both", "shrink" or "enlarge".

    Raises ValueError for arguments out of range.
    """

    paper = "He et al. 2022, https://arxiv.org/abs/2203.06801"
    family = "gradient norm"
    space = {"r": (0.0, 1.0)}  # noqa: RUF012
    tensor_state = ("norms", "counts")
    properties = frozenset({"linear_under_scaling"})

    def __init__(
        self, n_tasks: int, *, r: float = 0.7, beta: float = 0.9, target: int = 0, adapt: str = "both"
    ) -> None:
        super().__init__(n_tasks)
        check_from_to(0, 1, r=r)
        check_fraction(beta=beta)
        check_task(n_tasks, target=target)
        check_choice(_ADAPT, adapt=adapt)
        self.r, self.beta, self.target, self.adapt = r, beta, target, adapt

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The direction [P]."""
        found = blockwise.norms(jacobian, self.sizes)
        counts = self.rows["counts"] + 1
        norms = self.beta * self.rows["norms"].to(found) + (1 - self.beta) * found
        self.rows["norms"], self.rows["counts"] = norms.to(jacobian), counts
        at = np.flatnonzero(np.arange(self.n_tasks)[present] == self.target)
        if not len(at):
            return jacobian.sum(0)
        factors = self._factors(norms / (1 - self.beta ** counts.to(norms)), int(at[0])).to(jacobian)
        out = torch.empty_like(jacobian[0])
        for k, columns in blockwise.pieces(self.sizes):
            out[columns] = factors[:, k] @ jacobian[:, columns]
        return out

    def _factors(self, norms: Tensor, at: int) -> Tensor:
        """What every gradient is multiplied by in every tensor [m, n], from their average norms [m, n]."""
        target = norms[at]
        touched = (norms > 0) & (target > 0)
        if self.adapt != "both":
            touched &= norms > target if self.adapt == "shrink" else norms < target
        return torch.where(touched, self.r * target / norms + 1 - self.r, 1.0)
