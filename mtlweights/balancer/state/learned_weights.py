"""Learned weights: a strategy's parameters, and the Adam that moves them.

It is Adam with its usual moments but for eps: 1e-16 where torch and the authors' code have 1e-8. With 1e-8 a
weight whose gradient is that small, as where losses are, would move slower for it; here it moves the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ...strategies import Strategy

BETAS, EPS = (0.9, 0.999), 1e-16  # no step may depend on the scale of the losses


class Learned:
    """The parameters of a strategy, a row per task, each row with moments and an age of its own.

    Args:
        strategy: Whose parameters these are.
        lr: Learning rate, constant; no weight decay.

    Raises:
        ValueError: a parameter without a row per task.
    """

    def __init__(self, strategy: Strategy, lr: float) -> None:
        self.strategy, self.lr = strategy, lr
        self.params = dict(strategy.named_parameters())
        for name, param in self.params.items():
            if param.shape[:1] != (strategy.n_tasks,):
                raise ValueError(
                    f"Learned parameter {name!r} should have one row per task, found {param.shape}."
                )
        self.moments = {k: [torch.zeros_like(p), torch.zeros_like(p)] for k, p in self.params.items()}
        self.updates = torch.zeros(strategy.n_tasks)

    def to(self, device: torch.device) -> None:
        """Move moments and ages; the parameters move with the strategy."""
        self.moments = {k: [x.to(device) for x in pair] for k, pair in self.moments.items()}
        self.updates = self.updates.to(device)

    @torch.no_grad()
    def update(self, sums: dict[str, Tensor], seen: np.ndarray, ok: Tensor) -> None:
        """One Adam step on the rows of tasks seen, if ``ok`` []; a row whose gradient is 0 does not move.

        Args:
            sums: name -> gradients summed over backward passes, as the parameter.
            seen: how many of them had each task [T].
            ok: the step was taken and finite.
        """
        if not self.params:
            return
        nonzero = [s != 0 if s.dim() == 1 else s.flatten(1).any(1) for s in sums.values()]
        moved = (nonzero[0] if len(nonzero) == 1 else torch.stack(nonzero).any(0)) & ok
        if (seen > 1).any():
            often = torch.as_tensor(np.maximum(seen, 1), device=moved.device)
            sums = {k: s / _rows(often, s).to(s.dtype) for k, s in sums.items()}
        self.updates = self.updates + moved
        for name, param in self.params.items():
            self._adam(name, param, sums[name], _rows(moved, param))
        self.strategy.project(moved)

    def _adam(self, name: str, param: Tensor, gradient: Tensor, at: Tensor) -> None:
        first, second = self.moments[name]
        first = torch.where(at, first.lerp(gradient, 1 - BETAS[0]), first)
        grown = torch.addcmul(second * BETAS[1], gradient, gradient, value=1 - BETAS[1])
        second = torch.where(at, grown, second)
        age = _rows(self.updates, param).clamp(min=1).to(param.dtype)
        rate = self.lr * (1 - BETAS[1] ** age).sqrt() / (1 - BETAS[0] ** age)
        param.copy_(torch.where(at, param - rate * first / (second.sqrt() + EPS), param))
        self.moments[name] = [first, second]


def _rows(per_task: Tensor, like: Tensor) -> Tensor:
    """[T] in the shape of a parameter's rows."""
    return per_task if like.dim() == 1 else per_task.view(-1, *[1] * (like.dim() - 1))
