"""Variational uncertainty weighting: a Gaussian posterior over the tasks' true gradients."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import ALL, Index, JacobianStrategy
from ..hyperparameters import check_fraction, check_share
from . import blockwise, factor_analysis


class Variational(JacobianStrategy):
    """Weights by how much of a task's true gradient is known; learns how the true gradients correlate.

    This rule is ours. Task i's unit gradient ``u_i = g_i / |g_i|`` is taken as a signal s_i plus its own
    noise: for each of the P elements ``s ~ N(0, K / P)`` jointly over the tasks, ``u_i ~ N(s_i, psi_i / P)``.
    The key y_i, a moving average of u_i, is the mean of ``n = (1 + decay) / (1 - decay)`` draws, so that its
    products, averaged over all steps, tell signal from noise: ``E[Y Y^T] = A = K + diag(psi) / n`` and
    ``K_ii + psi_i = 1``. With N = diag(psi) / n and ``q(s) = N(B y, V)``, full over the tasks, the evidence
    lower bound has a closed form (see `factor_analysis`) and is raised once a step in each of

    ``V = (K^-1 + N^-1)^-1, B = V N^-1``;  ``K = (1 - pull) (V + B A B^T) + pull mean(diag(A)) I``;
    ``psi_i = 1 - 2 (B A)_ii + (B A B^T + V)_ii``.

    The model is conjugate, so the bound is tight after its first line. pull is the weight of an inverse
    Wishart prior. K as a correlation is the estimate of how tasks relate, free of the noise that makes raw
    cosines small; of noise that two tasks share in a batch 1 / n stays. How well it recovers planted
    relations, and when it does not: docs/relations.md. The direction is ``mean(|g|) sum_i w_i u_i``
    over the m tasks present, ``w_i = m r_i / sum(r)``, with ``r_i = 1 - V_ii / K_ii`` the share of s_i's
    variance that is known.

    Background: D. Blei, A. Kucukelbir, J. McAuliffe, "Variational Inference: A Review for Statisticians",
    https://arxiv.org/abs/1601.00670. A zero gradient counts as no signal; its weight is 0.

    Args:
        n_tasks: T.
        decay: in [0, 1), of the keys.
        pull: in (0, 1), of K to equal, unrelated signals.

    Raises ValueError for numbers out of range.
    """

    paper = "this rule is ours; variational inference: Blei et al. 2017, https://arxiv.org/abs/1601.00670"
    family = "task relations"
    space = {"decay": (0.8, 0.99), "pull": (0.01, 0.5, "log")}  # noqa: RUF012
    row_state = ("key",)
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    moments: Tensor  # A
    count: Tensor  # steps in which both tasks were present
    signal: Tensor  # K
    noise: Tensor  # psi

    def __init__(self, n_tasks: int, *, decay: float = 0.9, pull: float = 0.1) -> None:
        super().__init__(n_tasks)
        check_fraction(decay=decay, pull=pull)
        check_share(pull=pull)
        self.decay, self.pull = decay, pull
        self.register_buffer("moments", torch.zeros(n_tasks, n_tasks))
        self.register_buffer("count", torch.zeros(n_tasks, n_tasks))
        self.register_buffer("signal", torch.eye(n_tasks))
        self.register_buffer("noise", torch.ones(n_tasks))

    @property
    def draws(self) -> float:
        """n, how many independent gradients a key is worth."""
        return (1 + self.decay) / (1 - self.decay)

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> tuple[Tensor, Tensor]:
        """The direction [P] and the weights [m] of the gradients as they are."""
        index = torch.arange(self.n_tasks)[present]
        block = index[:, None], index
        length = blockwise.lengths(jacobian)
        key = blockwise.follow(self.rows["key"], jacobian, length, self.decay)
        self.rows["key"] = key
        count = self.count[block] + 1
        moments = self.moments[block] + (blockwise.gramian(key) - self.moments[block]) / count
        before, noise = self.signal[block].to(length), self.noise[index].to(length)
        signal, noise, cov = factor_analysis.sweep(moments, before, noise, self.draws, self.pull)
        self.count[block], self.moments[block] = count, moments.to(self.moments)
        self.signal[block], self.noise[index] = signal.to(self.signal), noise.to(self.noise)
        known = (length > 0) * (1 - cov.diagonal() * blockwise.inverse(before.diagonal()))
        return blockwise.combine(jacobian, length, len(index) * known * blockwise.inverse(known.sum()))

    def relations(self) -> np.ndarray:
        """Correlations [T, T] of the tasks' true gradients, as estimated by now."""
        return factor_analysis.correlations(self.signal, self.signal.diagonal()).cpu().numpy()

    def bound(self) -> float:
        """The evidence lower bound of one element at the current state, with the log prior of K."""
        moments, signal, noise = (
            b.to(blockwise.wide(b.device)) for b in (self.moments, self.signal, self.noise)
        )
        gain, cov = factor_analysis.posterior(signal, noise / self.draws)
        return float(factor_analysis.bound(moments, gain, cov, signal, noise, self.draws, self.pull))
