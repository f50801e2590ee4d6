"""Contrastive task relations: whose gradient could this be?"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_fraction
from . import blockwise, factor_analysis


class Contrastive(JacobianStrategy):
    """Each task's gradient is replaced by what it would be, were its task guessed from the gradient.

    This rule is ours. The query of task i is its unit gradient ``u_i = g_i / |g_i|``; the key y_j of task j
    is the moving average of u_j up to the last step, so the noise of the two is independent, and the products
    ``u_i . y_j`` are free of the bias that the gradients' noise puts into their norms. C is their mean over
    all steps, made symmetric, and ``R_ij = C_ij / sqrt(c_i c_j)`` with ``c_i`` half C_ii (at least 0), half
    the mean of all C_kk: without that half a task with hardly any signal would have large R by chance.

    A critic with one learned parameter, the sharpness b, has to tell whose key belongs to a query:
    ``L(b) = mean_i(log sum_j exp(b x_ij) - b x_ii)`` with ``x_ij = u_i . y_j / sqrt(c_i c_j)``. This InfoNCE
    loss is convex in b; b takes one Newton step a step, ``b -= L'(b) / (1 + sum of L''(b) up to now)``. The
    probability that task i's gradient is taken for task j's is ``p_ij = exp(b R_ij) / sum_k exp(b R_ik)``
    over the m tasks present. With every unit gradient replaced by ``sum_j p_ij u_j`` the direction is
    ``mean(|g|) sum_j w_j u_j``, ``w_j = sum_i p_ij``, which sum to m. R is the estimate of how tasks relate;
    docs/relations.md has how well it recovers planted relations, and when it does not.

    InfoNCE: A. van den Oord, Y. Li, O. Vinyals, "Representation Learning with Contrastive Predictive Coding",
    https://arxiv.org/abs/1807.03748, equation 4; keys that follow slowly: K. He, H. Fan, Y. Wu, S. Xie,
    R. Girshick, "Momentum Contrast", https://arxiv.org/abs/1911.05722, equation 2. There networks embed
    examples; here nothing is embedded.

    Args:
        n_tasks: T.
        decay: in [0, 1), of the keys.

    Raises ValueError for a decay out of range.
    """

    paper = "this rule is ours; InfoNCE: van den Oord et al. 2018, https://arxiv.org/abs/1807.03748"
    family = "task relations"
    space = {"decay": (0.8, 0.99)}  # noqa: RUF012
    row_state = ("key",)
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    products: Tensor  # C
    count: Tensor  # steps in which both tasks were present
    sharpness: Tensor
    curvature: Tensor  # sum of L''

    def __init__(self, n_tasks: int, *, decay: float = 0.9) -> None:
        super().__init__(n_tasks)
        check_fraction(decay=decay)
        self.decay = decay
        self.register_buffer("products", torch.zeros(n_tasks, n_tasks))
        self.register_buffer("count", torch.zeros(n_tasks, n_tasks))
        self.register_buffer("sharpness", torch.ones(()))
        self.register_buffer("curvature", torch.ones(()))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P] and the weights [m] of the gradients as they are."""
        index = torch.arange(self.n_tasks)[present]
        block = index[:, None], index
        length = blockwise.lengths(jacobian)
        found = blockwise.products(jacobian, length, self.rows["key"])
        self.rows["key"] = blockwise.follow(self.rows["key"], jacobian, length, self.decay)
        count = self.count[block] + 1
        products = self.products[block] + ((found + found.T) / 2 - self.products[block]) / count
        self.count[block], self.products[block] = count, products.to(self.products)
        scale = blockwise.inverse(variances(products).sqrt())
        sharpness = self._learn(scale[:, None] * found * scale)
        relations = factor_analysis.correlations(products, variances(products))
        shares = torch.softmax(sharpness * relations, 1).sum(0)
        return blockwise.combine(jacobian, length, shares)

    def _learn(self, similarity: Tensor) -> Tensor:
        """The sharpness [] after a Newton step on the InfoNCE loss of ``similarity`` [m, m]."""
        sharpness = self.sharpness.to(similarity)
        slope, curvature = info_nce(similarity, sharpness)
        self.curvature += curvature.to(self.curvature)
        sharpness = (sharpness - slope / self.curvature).clamp(min=0)
        self.sharpness.copy_(sharpness)
        return sharpness

    def relations(self) -> np.ndarray:
        """R [T, T], the correlations of the tasks' gradients, as estimated by now."""
        found = factor_analysis.correlations(self.products, variances(self.products))
        return found.cpu().numpy()


def variances(products: Tensor) -> Tensor:
    """Size [m] of the tasks' signals: half their own product with their key, half the mean of all."""
    own = products.diagonal().clamp(min=0)
    return (own + own.mean()) / 2


def info_nce(similarity: Tensor, sharpness: Tensor) -> tuple[Tensor, Tensor]:
    """First and second derivative [] of ``mean_i(log sum_j exp(b x_ij) - b x_ii)`` in b."""
    guess = torch.softmax(sharpness * similarity, 1)
    mean = (guess * similarity).sum(1)
    spread = (guess * (similarity - mean[:, None]) ** 2).sum(1)
    return (mean - similarity.diagonal()).mean(), spread.mean()
