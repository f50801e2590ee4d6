"""Gradients of validation losses, which some strategies learn their weights from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ...gradients import task_gradients, write_grad
from ...gradients.batch import Batch
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.shared_parameters import Sharing
from ...gradients.task_gradients import Row
from ...strategies import GramStrategy, Strategy

Closure = Callable[[], tuple[list[int], list[Tensor]]]  # tasks present and their losses, with graph


class Validation:
    """What ``Balancer.validate`` was given, until the next Gramian takes it.

    Args:
        strategy: Says where the gradients are taken (its ``lookahead``).
        sharing: The parameters.
        ranks: The processes whose gradients are averaged.
    """

    def __init__(self, strategy: Strategy, sharing: Sharing, ranks: Ranks) -> None:
        self.strategy, self.sharing, self.ranks = strategy, sharing, ranks
        self.clear()

    def clear(self) -> None:
        """Forget what was given."""
        self.closure: Closure | None = None
        self.found: tuple[list[Row], Leaves, Tensor] | None = None

    @property
    def waits(self) -> bool:
        """Something was given that no Gramian has taken."""
        return self.closure is not None or self.found is not None

    def give(self, closure: Closure) -> None:
        """Take the gradients now, or keep the closure for a strategy that looks ahead."""
        assert isinstance(self.strategy, GramStrategy)
        self.clear()
        if self.strategy.lookahead(np.arange(self.strategy.n_tasks)) is not None:
            self.closure = closure
            return
        self.found = self._rows(closure)

    def take(
        self, present: np.ndarray, rows: Sequence[Row], params: list[Tensor], factor: Tensor
    ) -> tuple[list[Row], Tensor | None]:
        """Rows over ``params`` and losses [v] of the validation batch; none if nothing was given.

        ``rows``, scaled by ``factor``, are the training gradients of the tasks ``present``.
        """
        if self.closure is not None:
            self.found = self._ahead(self.closure, present, rows, params, factor)
        found = self.found
        self.clear()
        if found is None:
            return [], None
        rows, leaves, losses = found
        place = {id(param): k for k, param in enumerate(leaves.params)}
        at = [place.get(id(param)) for param in params]
        return [[None if k is None else row[k] for k in at] for row in rows], losses

    def _ahead(
        self,
        closure: Closure,
        present: np.ndarray,
        rows: Sequence[Row],
        params: list[Tensor],
        factor: Tensor,
    ) -> tuple[list[Row], Leaves, Tensor]:
        """Gradients at theta - sum(c_i g_i); the parameters come back bit for bit.

        Written through ``.data``: autograd must not take it for a change of what a graph has saved.
        """
        assert isinstance(self.strategy, GramStrategy)
        coefficients = self.strategy.lookahead(present)
        assert coefficients is not None
        before = [param.detach().clone() for param in params]
        try:
            for k, param in enumerate(params):
                for c, row in zip(coefficients.tolist(), rows, strict=True):
                    gradient = row[k]
                    if gradient is not None:
                        param.data.sub_(write_grad.as_gradient(param, gradient * (c / factor)))
            return self._rows(closure)
        finally:
            for param, old in zip(params, before, strict=True):
                param.data.copy_(old)

    def _rows(self, closure: Closure) -> tuple[list[Row], Leaves, Tensor]:
        """Rows, over which leaves, and losses [v], averaged over the ranks."""
        with torch.enable_grad():
            present, values = closure()
        several = self.ranks.number > 1
        leaves = self.sharing.register(present, values, everywhere=several)
        one = torch.ones((), device=values[0].device)
        rows = task_gradients.rows(values, leaves.params, one)
        if not several:
            return rows, leaves, torch.stack([v.detach().to(values[0].device) for v in values])
        batch = Batch(present, values, [1.0] * len(values), leaves, one)
        columns, n_tasks = range(len(leaves.params)), self.strategy.n_tasks
        (_, losses, _), rows, _ = self.ranks.mean_rows(rows, batch, columns, n_tasks)
        return rows, leaves, losses
