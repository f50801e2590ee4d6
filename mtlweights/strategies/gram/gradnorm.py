"""GradNorm (Chen et al. 2018)."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from ..base import GramStrategy
from ..hyperparameters import check_at_least

#: No weight goes below this share of the mean weight, 1, before the weights are rescaled.
FLOOR = 1e-3


class GradNorm(GramStrategy):
    """Learned weights that bring all tasks' gradient norms to a common, rate-adjusted size.

    With n_i the norm of task i's *unweighted* gradient on the last shared layer,
    ``G_i = w_i n_i`` and ``r_i = (l_i / l_i(0)) / mean_k(l_k / l_k(0))``, the weights descend

    ``L_grad = sum_i |G_i - mean_k(G_k) r_i^alpha|``, the target being a constant,

    whose gradient is ``sign(G_i - target_i) n_i``, and are then rescaled to sum to T. The model
    descends ``sum_i w_i l_i``, heads included.

    Z. Chen, V. Badrinarayanan, C.-Y. Lee, A. Rabinovich, "GradNorm: Gradient Normalization for
    Adaptive Loss Balancing in Deep Multitask Networks", ICML 2018, https://arxiv.org/abs/1711.02257,
    equations 1 and 2, algorithm 1.

    l_i(0) is the loss of the first step that has task i, and l_i / l_i(0) counts as 1 where l_i(0)
    is 0, or where either is negative: no rate of training is to be had from such a ratio. Means are
    over the tasks present; the weights of absent tasks stay, and those present are rescaled to the rest
    of T. Departure: weights are floored at 0.001 before the rescaling, where the paper lets a large step
    make them negative.

    Public code differs: one much-used version has the sign of alpha inverted, so that slow tasks get
    *smaller* targets; others average L_grad instead of summing it, measure on all shared
    parameters, or replace the rescaling by a softmax.

    Args:
        n_tasks: T.
        alpha: >= 0, strength of the pull towards equal training rates (paper: 1.5 on NYUv2, 0.12 on
            its toy problem).
    """

    paper = "Chen et al. 2018, https://arxiv.org/abs/1711.02257"
    family = "gradient norm"
    space = {"alpha": (0.0, 3.0), "weight_lr": (1e-3, 0.3, "log")}  # noqa: RUF012
    heads = "weighted"
    measured_at = "last_shared"
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    initial: Tensor

    def __init__(self, n_tasks: int, *, alpha: float = 1.5) -> None:
        super().__init__(n_tasks)
        check_at_least(0, alpha=alpha)
        self.alpha = alpha
        self.w = nn.Parameter(torch.ones(n_tasks, dtype=torch.float64))
        self.register_buffer("initial", torch.full((n_tasks,), math.nan, dtype=torch.float64))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """The current weights [m]; leaves the gradient of L_grad in ``w.grad``."""
        w = self.w.detach().numpy()[present]
        norm = np.sqrt(np.diagonal(gram))
        weighted = w * norm
        target = weighted.mean() * self._relative_rate(losses, present) ** self.alpha
        # Equal up to rounding is equal: a sign of noise would be a full step of Adam.
        moves = np.abs(weighted - target) > 1e-12 * target
        gradient = np.zeros(self.n_tasks)
        gradient[present] = np.where(moves, np.sign(weighted - target) * norm, 0.0)
        self.w.grad = torch.from_numpy(gradient)
        return w

    def _relative_rate(self, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """r [m], from the losses [m]; takes the initial losses of tasks seen for the first time."""
        stored = self.initial.numpy()
        initial = np.where(np.isnan(stored[present]), losses, stored[present])
        stored[present] = initial
        positive = (initial > 0) & (losses >= 0)
        ratio = np.where(positive, losses / np.where(positive, initial, 1.0), 1.0)
        mean = ratio.mean()
        return ratio / mean if mean > 0 else np.ones_like(ratio)

    @torch.no_grad()
    def project(self, moved: Tensor) -> None:
        """Floors the weights that ``moved`` and rescales them so that all T sum to T again."""
        w = self.w[moved].clamp(min=FLOOR)
        self.w[moved] = w * ((self.n_tasks - self.w[~moved].sum()) / w.sum())
