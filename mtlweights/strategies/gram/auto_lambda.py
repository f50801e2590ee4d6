"""Auto-lambda (Liu et al. 2022)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ..base import GramStrategy
from ..hyperparameters import check_above, check_switch


class AutoLambda(GramStrategy):
    """Learned weights that lower the validation losses one step ahead.

    The model descends ``sum_i lambda_i l_i``, heads included, and lambda descends
    ``sum_v L_v(theta - eta sum_i lambda_i g_i)`` with Adam, L_v being validation losses. As theta' is
    linear in lambda, the gradient in lambda_i is exactly ``-eta g_i . sum_v grad L_v(theta')``: a product
    of two gradients, no second derivative.

    S. Liu, S. James, A. J. Davison, E. Johns, "Auto-Lambda: Disentangling Dynamic Task Relationships", TMLR
    2022, https://arxiv.org/abs/2202.03091.

    Call ``balancer.validate(closure)`` before each step; the closure gives the losses of a validation batch
    for the *primary* tasks, the ones to be good at. In a step without it lambda stays. The weights are not
    constrained, as in the authors' code: a task that harms the primary ones may get a negative weight, and
    then its own head ascends; ``heads="plain"`` avoids that.

    Departures from the authors' code: the product is exact, where theirs is a finite difference; the virtual
    step is plain gradient descent, where theirs adds the model optimizer's momentum and weight decay; lambda
    moves after the model's step, so a step's validation batch counts from the next one on. Their Adam has a
    learning rate of 3e-5 to 3e-4 by data set; here 1e-4 unless the Balancer's ``weight_lr`` is given.

    Args:
        n_tasks: T.
        init: > 0, where every lambda starts (authors: 0.1).
        eta: > 0, size of the virtual step, the learning rate of the model's SGD (authors: 0.1). As Adam
            takes out its length, it only matters through theta'.
        bilevel: validation gradients at theta', as in the paper; False: at theta, for large models or small
            eta, which saves the virtual step.

    Raises ValueError for numbers out of range.
    """

    paper = "Liu et al. 2022, https://arxiv.org/abs/2202.03091"
    family = "validation"
    space = {"init": (0.03, 1.0, "log"), "eta": (1e-4, 1.0, "log"), "weight_lr": (1e-5, 1e-2, "log")}  # noqa: RUF012
    heads = "weighted"
    weight_lr = 1e-4
    measured_at = "all"
    needs = ("validate",)
    scale_degree = None  # eta is in the unit of parameters per gradient
    signed_weights = True
    properties = frozenset({"permutation_equivariant", "linear_under_scaling"})

    def __init__(self, n_tasks: int, *, init: float = 0.1, eta: float = 0.1, bilevel: bool = True) -> None:
        super().__init__(n_tasks)
        check_above(0, init=init, eta=eta)
        check_switch(bilevel=bilevel)
        self.eta, self.bilevel = eta, bilevel
        self.w = nn.Parameter(torch.full((n_tasks,), float(init), dtype=torch.float64))

    def lookahead(self, present: np.ndarray) -> np.ndarray | None:
        """``eta lambda`` [m], the virtual step; None with ``bilevel=False``."""
        return self.eta * self._current(present) if self.bilevel else None

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """The current lambda [m]; leaves the validation losses' gradient in ``w.grad``."""
        w = self._current(present)
        m, gradient = len(w), np.zeros(self.n_tasks)
        gradient[present] = -self.eta * gram[:m, m:].sum(axis=1)
        self.w.grad = torch.from_numpy(gradient)
        return w

    def _current(self, present: np.ndarray) -> np.ndarray:
        w = self.w.detach().numpy().copy()
        return w[present]
