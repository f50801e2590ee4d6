"""One call of the balancer: measure what the strategy looks at, weigh, write ``.grad``, propose the state.

Two ways. A LossStrategy returns a scalar whose backward is the user's own, once, each loss weighted
(:meth:`Engine.objective`). Everything else is done by our own passes, once that scalar's backward has come
(:meth:`Engine.gradients`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ...gradients import functions, write_grad
from ...gradients.batch import Batch
from ...gradients.factored import Weight
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.shared_parameters import Sharing
from ...gradients.switches import no_autocast
from ...gradients.write_grad import Found
from ...strategies import GramStrategy
from ..arguments import check_replays
from ..calls import Losses
from ..records import Step, Weights
from ..state.optimizer_steps import OptimizerSteps
from ..state.window import Window
from .measure import Measure
from .weights import Weigher

Decided = Callable[[Step], None]


@dataclass
class Engine:
    """The parts of a balancer, in the order in which a step goes through them."""

    measure: Measure
    weigher: Weigher
    sharing: Sharing
    ranks: Ranks
    window: Window | None
    steps: OptimizerSteps

    @property
    def one_pass(self) -> bool:
        """The scalar's own backward does all: no rows, nothing written here."""
        return self.measure.loss_based and not self.weigher.plain_heads and self.window is None

    def scalar(self, losses: Losses) -> Tensor:
        """The scalar [] of these losses, whose backward is the step."""
        values = losses.values
        if self.one_pass and not self.ranks.several_forwards(values):
            starts = partial(self._starts, self.begin(values))
            with no_autocast(values[0].device):
                return self.objective(losses, starts)
        leaves, hang = self.register(losses.present, values)  # raises now where nothing tells a window's end
        with torch.no_grad():
            total = losses.plain_sum()
        run = partial(self._run, losses, leaves)
        return functions.defer(total, run, leaves.graph, hang, self.ranks.shares_forward)

    def begin(self, values: Sequence[Tensor]) -> Decided:
        """Move the state to the losses' device, and resolve the last step; returns what proposes this one."""
        host = isinstance(self.weigher.strategy, GramStrategy)
        self.weigher.state.to(torch.device("cpu") if host else values[0].device)
        return self.steps.begin(values, self.sharing)

    # in the user's backward -------------------------------------------------------------------------------

    def objective(self, losses: Losses, starts: Decided) -> Tensor:
        """The objective [] of a LossStrategy; ``starts(step)`` is called when its backward does."""
        step = self.measure.losses(losses.present, losses.values, losses.counts)
        value = self.weigher.objective(step)
        return self.weighted(value, step.per_row[0], step, losses, partial(starts, step))

    def weighted(
        self, value: Tensor, weights: Any, step: Step, losses: Losses, starts: Callable[[], None]
    ) -> Tensor:
        """A scalar of this value whose backward gives this rank's ``losses`` the weights [m] of a step."""
        if self.ranks.number > 1:
            weights = weights[[step.present.index(i) for i in losses.present]]
            weights = weights * torch.stack(step.shares(losses.present, losses.counts)) * self.ranks.number
        scalar: Tensor = functions.Weighted.apply(  # type: ignore[no-untyped-call]
            value, weights, starts, *losses.values
        )
        return scalar

    def _starts(self, propose: Decided, step: Step) -> None:
        propose(step)
        functions.after_backward(self.steps.mark)

    # in passes of our own ---------------------------------------------------------------------------------

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

    def _run(self, losses: Losses, leaves: Leaves, factor: Tensor, retain_graph: bool) -> Found:
        """What the backward of the scalar does: the gradients, times the incoming ``factor``."""
        propose = self.begin(losses.values)
        # all that DDP returns from forward is one node: the outer engine visits the other outputs as well
        keep = retain_graph or self.ranks.number > 1
        batch = Batch(losses.present, losses.values, losses.counts, leaves, factor, keep)
        with no_autocast(factor.device):
            found = self.gradients(batch, propose)
        functions.after_backward(self.steps.mark)
        return found

    def gradients(self, batch: Batch, decided: Decided) -> Found:
        """The step's gradients, times the incoming factor.

        ``decided(step)`` is called before the last pass: an optimizer may step as soon as its parameter has a
        gradient. Inside an accumulation window nothing is decided yet, and nothing found.
        """
        found = self.measure(batch)
        if found is None:
            return []
        direction = self.weigher.weigh(found)
        step = found.step
        decided(step)
        if not found.whole:
            weights = (self._own(of, step, batch) for of in step.per_row)
            return write_grad.by_weighted_passes(self.ranks, batch, *weights)
        pieces = {k: piece for k, piece in direction.items() if self._balanced(found.leaves, k)}
        trunk, heads = (_items(weights, len(found.rows)) for weights in step.per_row)
        return write_grad.from_rows(
            found.leaves, found.rows, trunk, heads, pieces, step.wide, self.ranks, found.apart
        )

    def _own(self, weights: Weights, step: Step, batch: Batch) -> list[Weight]:
        """Of the weights [m] of a step those of this rank's losses, times its share of them."""
        every = _items(weights, len(step.present))
        own = [every[step.present.index(i)] for i in batch.present]
        if self.ranks.number == 1:
            return own
        shares = step.shares(batch.present, batch.counts)
        return [weight * share for weight, share in zip(own, shares, strict=True)]

    def _balanced(self, leaves: Leaves, column: int) -> bool:
        """A direction is for shared parameters; of a single task at hand it is not known yet which are."""
        several = self.weigher.strategy.n_tasks > 1 and isinstance(self.sharing.shared, str)
        return not several or leaves.known[column].tasks.bit_count() >= 2

    # between two steps ------------------------------------------------------------------------------------

    def after_step(self, losses: Losses) -> None:
        """Give the strategy the losses after the optimizer step, averaged over the ranks."""
        step = self.measure.losses(losses.present, losses.values, losses.counts)
        state = self.weigher.state
        state.strategy.after_step(step.losses, state.at(step.present))
        state.learn(step)


def _items(weights: Weights, m: int) -> Sequence[Weight]:
    """One weight per row: floats, or 0-dim tensors left on their device; None is all ones."""
    if weights is None:
        return [1.0] * m
    return weights.unbind() if isinstance(weights, Tensor) else weights.tolist()
