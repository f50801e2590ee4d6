"""One backward of a step: measure what the strategy looks at, weigh, write ``.grad``.

Two ways. A LossStrategy returns a scalar whose backward is the user's own, once, each loss weighted
(:meth:`Engine.scalar`). Everything else is done by our own passes (:meth:`Engine.found`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...gradients import functions
from ...gradients.batch import Batch
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.shared_parameters import Sharing
from ...gradients.task_gradients import Found
from ..arguments import check_replays
from ..records import Step
from ..state.window import Window
from . import write_grad
from .measure import Measure
from .weights import Weigher


@dataclass
class Engine:
    """The three verbs in order."""

    measure: Measure
    weigher: Weigher
    sharing: Sharing
    ranks: Ranks
    window: Window | None

    @property
    def one_pass(self) -> bool:
        """The scalar's own backward does all: no rows, nothing written here."""
        return self.measure.loss_based and not self.weigher.plain_heads and self.window is None

    def scalar(
        self, present: list[int], values: list[Tensor], counts: list[Any], done: Callable[[Step], None]
    ) -> Tensor:
        """The objective [] of a LossStrategy; ``done(step)`` is called when its backward starts."""
        step = self.measure.losses(present, values, counts)
        value = self.weigher.objective(step)
        return self.weighted(value, step.per_row[0], step, (present, values, counts), partial(done, step))

    def weighted(
        self,
        value: Tensor,
        weights: Any,
        step: Step,
        losses: tuple[list[int], list[Tensor], list[Any]],
        starts: Callable[[], None],
    ) -> Tensor:
        """A scalar of this value whose backward gives this rank's ``losses`` the weights [m] of a step."""
        present, values, counts = losses
        if self.ranks.number > 1:
            weights = weights[[step.present.index(i) for i in present]]
            weights = weights * torch.stack(step.shares(present, counts)) * self.ranks.number
        scalar: Tensor = functions.Weighted.apply(  # type: ignore[no-untyped-call]
            value, weights, starts, *values
        )
        return scalar

    def register(self, present: list[int], values: list[Tensor]) -> tuple[Leaves, list[Tensor]]:
        """The leaves of these losses, and those the scalar is to hang on.

        In an open window, which gives no gradient yet, not those with hooks: they would be called with None.
        """
        local = self.ranks.number == 1 and self.ranks.wrapper is None and not self.sharing.sharded
        leaves = self.sharing.register(present, values, everywhere=self.ranks.number > 1)
        if leaves.replayed and self.measure.mode != "features":
            check_replays(values, self.weigher.strategy)
        if not local:
            return leaves, []
        if self.window is None:
            return leaves, leaves.params
        every = {id(param): param for param in [*leaves.params, *self.window.params()]}
        closes = self.window.closes()
        return leaves, [p for p in every.values() if closes or not p._backward_hooks]

    def found(self, batch: Batch, decided: Callable[[Step], None]) -> Found:
        """The step's gradients, times the incoming factor.

        ``decided(step)`` is called before the last pass: an optimizer may step as soon as its parameter has a
        gradient. Inside an accumulation window nothing is decided yet, and nothing found.
        """
        found = self.measure(batch)
        if found is None:
            return []
        direction = self.weigher.weigh(found)
        decided(found.step)
        if not found.whole:
            return write_grad.by_weighted_passes(self.ranks, found.step, batch)
        pieces = {k: piece for k, piece in direction.items() if self._balanced(found.leaves, k)}
        return write_grad.from_rows(found.leaves, found.step, found.rows, pieces)

    def _balanced(self, leaves: Leaves, column: int) -> bool:
        """A direction is for shared parameters; of a single task at hand it is not known yet which are."""
        several = self.weigher.strategy.n_tasks > 1 and isinstance(self.sharing.shared, str)
        return not several or leaves.known[column].tasks.bit_count() >= 2

    def after_step(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Give the strategy the losses after the optimizer step, averaged over the ranks."""
        step = self.measure.losses(present, values, counts)
        self.weigher.strategy.after_step(step.losses, self.weigher.state.at(step.present))
        return step
