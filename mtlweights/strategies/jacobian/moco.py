"""MoCo, multi-objective gradient correction (Fernando et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_above, check_at_least, check_share
from ..solvers import project_simplex
from . import blockwise


class MoCo(JacobianStrategy):
    """MoCo: MGDA's weights, followed step by step on gradients that are averaged over steps.

    ``y_i = P(y_i - beta_k (y_i - g_i))``, ``lam = S(lam - gamma_k (Y Y^T + rho I) lam)``,
    ``d = sum_i lam_i y_i``, with S the projection on the simplex, P the one on the ball of radius
    ``radius``, ``beta_k = beta / k ** decay`` and ``gamma_k = gamma / k ** decay``. lam
    starts as 1 / T.

    H. Fernando, H. Shen, M. Liu, S. Chaudhury, K. Murugesan, T. Chen, "Mitigating Gradient Bias in
    Multi-objective Learning: A Provably Convergent Stochastic Approach", ICLR 2023,
    https://arxiv.org/abs/2210.12624. d is made of y and lam as this step leaves them. The defaults are those
    of the authors' code, whose gradient of lam has a factor 2 that is left out here, and no rho (in a later
    repository of theirs it is 0.1). A widely used library has a beta of 0.5.

    y_i starts as the first g_i (per parameter tensor, should one be shared only later), not as 0; k counts
    task i's steps in beta_k and all steps in gamma_k. The paper bounds y; by default there is no bound.
    lam_i of an absent task stays, and those present share the rest of 1: a task always alone in its batch
    keeps its lam_i. A widely used library replaces S by a softmax, so that lam cannot leave the
    neighbourhood of 1 / T, and multiplies every unit gradient by its loss; neither is in the paper.

    The step of lam grows with the *square* of the gradients' length, so no degree of scale can be declared:
    gamma goes with the scale of the losses.

    Args:
        n_tasks: T.
        beta: in (0, 1], how fast y follows.
        gamma: > 0, how fast lam follows, over a squared gradient norm.
        rho: >= 0, pulls lam to 1 / T.
        decay: >= 0, of both.
        radius: > 0, largest norm of y_i, or None.

    Raises ValueError for numbers out of range.
    """

    paper = "Fernando et al. 2023, https://arxiv.org/abs/2210.12624"
    family = "memory"
    space = {"beta": (0.05, 1.0, "log"), "gamma": (1e-3, 10.0, "log")}  # noqa: RUF012
    scale_degree = None
    row_state = ("y",)
    tensor_state = ("counts",)
    properties = frozenset({"permutation_equivariant"})

    lam: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        beta: float = 0.1,
        gamma: float = 0.1,
        rho: float = 0.0,
        decay: float = 0.5,
        radius: float | None = None,
    ) -> None:
        super().__init__(n_tasks)
        check_share(beta=beta)
        check_above(0, gamma=gamma)
        check_at_least(0, rho=rho, decay=decay)
        if radius is not None:
            check_above(0, radius=radius)
        self.beta, self.gamma, self.rho = beta, gamma, rho
        self.decay, self.radius = decay, radius
        self.register_buffer("lam", torch.full((n_tasks,), 1 / n_tasks))

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P] and lam [m]."""
        y = self._track(jacobian)
        gram = blockwise.gramian(y)
        before = self.lam[present]
        m = len(before)
        host = torch.cat([gram.flatten(), before.to(gram), self.step[None].to(gram)]).cpu().double().numpy()
        products, lam, step = host[: m * m].reshape(m, m), host[m * m : -1], host[-1]
        gamma = self.gamma / (step + 1) ** self.decay
        moved = lam - gamma * (products @ lam + self.rho * lam)
        total = 1.0 if len(before) == self.n_tasks else lam.sum()
        after = torch.from_numpy(project_simplex(moved, total)).to(before)
        self.lam[present] = after
        return after.to(y) @ y, after

    def _track(self, jacobian: Tensor) -> Tensor:
        """y [m, P] after this step's gradients, which is also what is kept."""
        counts = self.rows["counts"]
        take = torch.where(counts > 0, self.beta / (counts + 1) ** self.decay, 1.0)
        y = blockwise.mix(self.rows["y"], jacobian, 1 - take, take, self.sizes)
        if self.radius is not None:
            norms = blockwise.norms(y, self.sizes).square().sum(1, keepdim=True).sqrt()
            y *= (self.radius / norms).clamp(max=1).to(y)
        self.rows["y"], self.rows["counts"] = y, counts + 1
        return y
