"""PCD, priority-constrained descent (Varam and AlHajri 2026)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_fraction, check_from_to, check_task
from ..solvers import least_change


class PCD(GramStrategy):
    """PCD: the primary task's gradient, changed as little as the others' progress needs.

    Gradients are divided by the root of a bias-corrected moving average of their squared norms,
    ``n_i = g_i / sqrt(v_i)``. d is the vector nearest to n_p, p the primary task, with
    ``n_j . d >= tau |n_j|^2`` for every other j, rescaled to the length of g_p.

    D. Varam, M. I. AlHajri, "Not All Objectives Are Born Equal: Priority-Constrained Descent for
    Hierarchical Multi-Objective Optimization", TMLR 2026, https://arxiv.org/abs/2606.29521.

    Where the conditions exclude each other, d is g_p; where d or g_p is zero, the direction is zero.
    Solved by a dual active-set method; the authors' code tries every set of constraints. Departures:
    the paper adds 1e-8 to v, which here depends on no scale; an absent task's average waits; without
    the primary task the others are summed.

    Args:
        n_tasks: T.
        primary: index of the primary task.
        tau: in [0, 1], share of progress every other task is promised.
        beta: in [0, 1), decay of the moving averages.

    Raises ValueError for an argument out of range.
    """

    paper = "Varam and AlHajri 2026, https://arxiv.org/abs/2606.29521"
    family = "gramian"
    space = {"tau": (1e-3, 1.0, "log")}  # noqa: RUF012
    properties = frozenset({"linear_under_scaling"})

    average: Tensor
    seen: Tensor

    def __init__(self, n_tasks: int, *, primary: int = 0, tau: float = 0.02, beta: float = 0.999) -> None:
        super().__init__(n_tasks)
        check_task(n_tasks, primary=primary)
        check_from_to(0, 1, tau=tau)
        check_fraction(beta=beta)
        self.primary, self.tau, self.beta = primary, tau, beta
        self.register_buffer("average", torch.zeros(n_tasks, dtype=torch.float64))
        self.register_buffer("seen", torch.zeros(n_tasks, dtype=torch.float64))

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0; moves the averages of the tasks present."""
        scale = self._scale(np.diagonal(gram), present)
        primary = np.flatnonzero(present == self.primary)
        if not len(primary):
            return np.ones(len(gram))
        p = int(primary[0])
        normalised = gram * scale * scale[:, None]
        others = np.delete(np.arange(len(gram)), p)
        inner = normalised[others[:, None], others]
        change = least_change(inner, normalised[others, p] - self.tau * np.diagonal(inner))
        weights = np.zeros(len(gram))
        weights[p] = 1.0
        if change is not None:
            weights[others] = change
        squared = weights @ normalised @ weights
        if squared <= 1e-14 * (weights @ np.abs(normalised) @ weights):
            return np.zeros(len(gram))
        return weights * scale * np.sqrt(gram[p, p] / squared)

    def _scale(self, squared: np.ndarray, present: np.ndarray) -> np.ndarray:
        """1 / sqrt(v) [m], and 0 for a task whose gradients have all been zero."""
        average, seen = self.average.numpy(), self.seen.numpy()
        average[present] = self.beta * average[present] + (1 - self.beta) * squared
        seen[present] += 1
        v = average[present] / (1 - self.beta ** seen[present])
        return np.divide(1.0, np.sqrt(v), out=np.zeros_like(v), where=v > 0)
