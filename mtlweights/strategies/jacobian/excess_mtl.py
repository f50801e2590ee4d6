"""ExcessMTL (He et al. 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_above, check_whole
from . import blockwise

#: The largest ratio of an excess risk to its first, for float32's sake.
LARGEST = 1e30


class ExcessMTL(JacobianStrategy):
    """ExcessMTL: tasks far from convergence gain weight; irreducible noise in their labels does not.

    A task's excess risk is estimated by its gradient in the metric of AdaGrad,
    ``e_i = sum_p g_ip^2 / sqrt(S_ip)`` with ``S_ip`` the sum of ``g_ip^2`` up to now; then
    ``w_i = w_i exp(eta e_i / e_i(0))``, rescaled, and ``d = sum_i w_i g_i``. The weights start as 1 / T
    and sum to 1; heads get them too.

    Y. He, S. Zhou, G. Zhang, H. Yun, Y. Xu, B. Zeng, T. Chilimbi, H. Zhao, "Robust Multi-Task
    Learning with Excess Risks", ICML 2024, https://arxiv.org/abs/2402.02009.

    e_i(0) is the mean of e_i over task i's first ``warmup`` steps with a gradient, in which its weight
    stays; the paper takes three epochs, the authors' code the first step. In that code the weights sum to T.
    Departures: no constant is added to S, and its root is what is kept, so that squares of small gradients
    do not underflow. Only the tasks present and past their warm-up are rescaled, to the sum they had: a task
    that misses steps does not lose weight to the others by it.

    Args:
        n_tasks: T.
        eta: > 0, how fast the weights follow. The authors' example has 1, with which one task can get all
            the weight in 100 steps; 0.01 is a widely used library's.
        warmup: at least 1, steps.

    Raises ValueError for numbers out of range.
    """

    paper = "He et al. 2024, https://arxiv.org/abs/2402.02009"
    family = "memory"
    space = {"eta": (1e-3, 1.0, "log")}  # noqa: RUF012
    heads = "weighted"
    row_state = ("roots",)
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    log_weights: Tensor
    baseline: Tensor  # sum of e over the warm-up
    seen: Tensor  # steps of the warm-up

    def __init__(self, n_tasks: int, *, eta: float = 0.01, warmup: int = 1) -> None:
        super().__init__(n_tasks)
        check_above(0, eta=eta)
        check_whole(1, warmup=warmup)
        self.eta, self.warmup = eta, warmup
        self.register_buffer("log_weights", torch.full((n_tasks,), -math.log(n_tasks)))
        self.register_buffer("baseline", torch.zeros(n_tasks))
        self.register_buffer("seen", torch.zeros(n_tasks))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P] and the weights [m]."""
        excess = self._excess(jacobian)
        seen, before = self.seen[present], self.log_weights[present]
        ready = seen >= self.warmup
        ratio = self.warmup * excess / torch.where(ready, self.baseline[present], 1.0)
        moved = torch.where(ready, before + self.eta * ratio.clamp(max=LARGEST), -torch.inf)
        shift = torch.where(ready, before, -torch.inf).logsumexp(0) - moved.logsumexp(0)
        log_weights = torch.where(ready, moved + shift, before)
        starts = ~ready & (excess > 0)
        self.baseline[present] += torch.where(starts, excess, 0.0)
        self.seen[present] = seen + starts
        self.log_weights[present] = log_weights
        weights = log_weights.exp()
        return weights.to(jacobian) @ jacobian, weights

    def _excess(self, jacobian: Tensor) -> Tensor:
        """e [m], float32; adds the gradients to the sums of squares."""
        roots = torch.hypot(self.rows["roots"], jacobian)
        excess = torch.zeros(len(jacobian), dtype=blockwise.wide(roots.device), device=roots.device)
        for _, columns in blockwise.pieces(self.sizes):
            g, root = jacobian[:, columns], roots[:, columns]
            excess += torch.where(root > 0, g / root * g, 0.0).sum(1, dtype=excess.dtype)
        self.rows["roots"] = roots
        return excess.to(self.baseline)
