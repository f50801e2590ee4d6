"""Fast adaptive multitask optimisation (Liu et al. 2023)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least
from .positive import masked_softmax, positive_logs, usable


class FAMO(LossStrategy):
    """FAMO: learned weights under which all log losses fall at the same rate.

    ``L = c sum_i z_i log l_i`` with ``z = softmax(xi)`` over the tasks present and
    ``c = 1 / sum_i (z_i / l_i)``, both constants in the step; the weights, ``c z_i / l_i``, sum to 1.
    With ``delta_i = log l_i - log l_i(after)``, what the optimizer step took off, the logits xi descend along
    ``(diag(z) - z z^T) delta + gamma xi`` with Adam.

    B. Liu, Y. Feng, P. Stone, Q. Liu, "FAMO: Fast Adaptive Multitask Optimization", NeurIPS 2023,
    https://arxiv.org/abs/2306.03792, algorithm 1, with 0 as the least value of every loss.

    l(after) is one of two things. With ``balancer.after_step(closure)`` after each optimizer step it is, as
    in the paper, the loss *of the same batch* (the last one, under accumulation), for one more forward
    pass; the logits move at once. Without that call it is the next batch's loss, as in the authors' code
    for their toy problem: no more passes, but delta has the noise between batches, and the logits move one
    step later.

    The Balancer's ``weight_lr``, 0.025, is also the authors' rate. gamma pulls the logits to 0 *inside*
    Adam, so near convergence it decides the sign of the step; public code has 1e-5 to 1e-2, and the authors
    advise a very small one for the toy problem. A loss of 0 is left out of its step, with weight 0; a
    negative one is refused (the authors subtract the least value a loss can have: do so before the call).

    Args:
        n_tasks: T.
        gamma: >= 0, decay of the logits.
    """

    paper = "Liu et al. 2023, https://arxiv.org/abs/2306.03792"
    family = "learned loss weights"
    space = {"gamma": (1e-5, 1e-2, "log"), "weight_lr": (1e-3, 0.3, "log")}  # noqa: RUF012
    positive_losses = True
    properties = frozenset({"permutation_equivariant"})

    before: Tensor  # log losses of the last step, NaN where none or already compared

    def __init__(self, n_tasks: int, *, gamma: float = 1e-3) -> None:
        super().__init__(n_tasks)
        check_at_least(0, gamma=gamma)
        self.gamma = gamma
        self.logits = nn.Parameter(torch.zeros(n_tasks))
        self.register_buffer("before", torch.full((n_tasks,), float("nan")))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted log ``losses`` [m]; its gradient in the logits is that of the last step."""
        values = losses.detach()
        positive = usable(values)
        z = masked_softmax(self.logits.detach()[present], positive)
        inverse = (z / torch.where(positive, values, 1.0)).sum()
        objective = (z * positive_logs(losses)).sum() / torch.where(inverse > 0, inverse, 1.0)
        last_step = self._decrease(values, present)
        self.before[present] = torch.where(positive, positive_logs(values), torch.nan).to(self.before)
        return objective + last_step - last_step.detach()

    def after_step(self, losses: Tensor, present: Index = ALL) -> None:
        """Leaves the logits' gradient, from the same batch's ``losses`` [m] after the step, in ``.grad``."""
        with torch.enable_grad():
            decrease = self._decrease(losses, present)
        (self.logits.grad,) = torch.autograd.grad(decrease, self.logits)
        self.before[present] = torch.nan

    def _decrease(self, after: Tensor, present: Index) -> Tensor:
        """What xi descends, []: ``z . delta + gamma |xi|^2 / 2`` over the tasks whose delta is known."""
        logits = self.logits[present]
        known = ~torch.isnan(self.before[present]) & usable(after)
        delta = torch.where(known, self.before[present] - positive_logs(after), 0.0)
        decay = torch.where(known, self.gamma * logits**2 / 2, 0.0)
        return (torch.softmax(logits, 0) * delta + decay).sum()
