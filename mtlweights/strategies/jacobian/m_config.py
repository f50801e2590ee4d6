"""M-ConFIG (Liu et al. 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..gram.config import conflict_free
from ..hyperparameters import decays
from . import blockwise


class MConFIG(JacobianStrategy):
    """M-ConFIG: ConFIG on the tasks' momenta, of which a step renews those at hand, one at the least.

    With m_i the moving average of g_i over the steps that had task i and hats for the division by
    ``1 - beta_1 ** k``, ``d = ConFIG(mhat_1, ..., mhat_T)``. d is divided, element by element, by the root of
    a second moment, that of the pseudo gradient ``(q_t - beta_1 q_(t-1)) / (1 - beta_1)``,
    ``q_t = (1 - beta_1 ** t) d_t``: the gradient whose Adam would have had d as its first moment.

    Q. Liu, M. Chu, N. Thuerey, "ConFIG: Towards Conflict-free Training of Physics Informed Neural
    Networks", ICLR 2025, https://arxiv.org/abs/2408.11104, algorithm 1, and the authors' code
    (``PseudoMomentumOperator``).

    A step costs a backward pass per task at hand, so a batch of one task costs one; kept are T momenta and
    two directions. d already is Adam's step, so the shared parameters want SGD without momentum. Departures:
    the authors' code stands still until every task has been seen, here d is of those seen so far; no 1e-8 is
    added to the root, so no scale of the losses matters, and an element without a gradient stays.

    Args:
        n_tasks: T.
        betas: two numbers in [0, 1), how much of the two moments is kept.

    Raises ValueError for betas out of range.
    """

    paper = "Liu et al. 2024, https://arxiv.org/abs/2408.11104"
    family = "memory"
    space = {}  # noqa: RUF012
    scale_degree = 0
    replaces_optimizer = True
    memory: ClassVar[Mapping[str, bool]] = {"momenta": True, "last": False, "roots": False}
    properties = frozenset({"permutation_equivariant"})

    counts: Tensor  #: steps of each task [T]

    def __init__(self, n_tasks: int, *, betas: Sequence[float] = (0.9, 0.999)) -> None:
        super().__init__(n_tasks)
        self.first, self.second = decays("betas", betas)
        self.register_buffer("counts", torch.zeros(n_tasks, dtype=torch.int64))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The direction [P]."""
        momenta = self.rows["momenta"].clone()
        momenta[present] = momenta[present].lerp(jacobian, 1 - self.first)
        self.counts[present] += 1
        gram = blockwise.gramian(momenta)
        ages = torch.cat([self.counts, self.step[None]]).to(gram)
        host = torch.cat([gram.flatten(), ages]).cpu().double()
        counts, time = host[-self.n_tasks - 1 : -1], float(host[-1]) + 1
        correction = 1 / (1 - self.first**counts).clamp(min=1 - self.first)  # of momenta that are 0 as well
        hats = host[: gram.numel()].reshape(gram.shape) * correction * correction[:, None]
        found = (torch.from_numpy(conflict_free(hats.numpy())) * correction).to(momenta) @ momenta
        self.rows["momenta"] = momenta
        return self._scaled(found, time)

    def _scaled(self, found: Tensor, time: float) -> Tensor:
        """Over the root of the second moment, in step ``time``, from 1."""
        now = found * (1 - self.first**time)
        pseudo = (now - self.first * self.rows["last"][0]) / (1 - self.first)
        root = torch.hypot(self.second**0.5 * self.rows["roots"][0], (1 - self.second) ** 0.5 * pseudo)
        self.rows["last"], self.rows["roots"] = now[None], root[None]
        step = torch.where(root > 0, found / root, 0.0)
        return step * (1 - self.second**time) ** 0.5
