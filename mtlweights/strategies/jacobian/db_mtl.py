"""DB-MTL, dual balancing (Lin et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_at_least, check_fraction
from . import blockwise


class DualBalancing(JacobianStrategy):
    """DB-MTL: gradients of log losses, averaged over steps, all brought to the longest one's norm.

    With ``g_i = grad log l_i`` and ``q_i = beta_k q_i + (1 - beta_k) g_i``, ``beta_k = beta / k ** sigma``
    at the k-th step with task i,

    ``d = sum_i (max_j |q_j| / |q_i|) q_i``.

    Heads descend ``grad log l_i``: the weights that are returned, and shown, are ``1 / |l_i|``.

    B. Lin, W. Jiang, F. Ye, Y. Zhang, P. Chen, Y.-C. Chen, S. Liu, I. W. Tsang, J. T. Kwok,
    "Dual-Balancing for Multi-Task Learning", 2023, https://arxiv.org/abs/2308.12029, equations 1 and 2,
    algorithm 1. The paper searches beta in {0.1, 0.5, 0.9} with sigma in {0, 0.5}; 0.9 and 0 are the
    authors' code's.

    Departures: q_i starts as the first g_i (per parameter tensor, should one be shared only later); the paper
    starts at 0, which makes the first step ``1 - beta`` times as long, and a task that joins later biased
    towards 0. No 1e-8 is added to losses or norms, so no scale of a loss matters. A loss of 0 has no
    logarithm: its task is left out of that step, with weight 0 and its average as it was. Of a negative
    one its absolute value is meant: g_i is ``grad l_i / |l_i|``, so it descends. A zero q_i adds nothing.

    Args:
        n_tasks: T.
        beta: in [0, 1), how much of the average is kept.
        sigma: >= 0, how fast beta decays.

    Raises ValueError for numbers out of range.
    """

    paper = "Lin et al. 2023, https://arxiv.org/abs/2308.12029"
    family = "gradient norm"
    space = {"beta": (0.0, 0.95)}  # noqa: RUF012
    heads = "weighted"
    scale_degree = 0
    weights_depend_on_losses = True
    row_state = ("averages",)
    tensor_state = ("counts",)
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def __init__(self, n_tasks: int, *, beta: float = 0.9, sigma: float = 0.0) -> None:
        super().__init__(n_tasks)
        check_fraction(beta=beta)
        check_at_least(0, sigma=sigma)
        self.beta, self.sigma = beta, sigma

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P], and the heads' weights ``1 / |l_i|`` [m]."""
        usable = losses.abs() >= torch.finfo(losses.dtype).tiny
        weights = torch.where(usable, 1 / losses.abs(), 0.0)
        counts = self.rows["counts"]
        keep = torch.where(counts > 0, self.beta / (counts + 1) ** self.sigma, 0.0)
        take = (1 - keep) * weights[:, None]
        keep = torch.where(usable[:, None], keep, 1.0)
        averages = blockwise.mix(self.rows["averages"], jacobian, keep, take, self.sizes)
        self.rows["averages"], self.rows["counts"] = averages, counts + usable[:, None]
        norms = blockwise.norms(averages, self.sizes).square().sum(1).sqrt() * usable
        coefficients = torch.where(norms > 0, norms.max() / norms, 0.0)
        return coefficients.to(averages) @ averages, weights
