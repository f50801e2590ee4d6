"""One training step: from losses to weights to gradients.

Two ways. A LossStrategy returns a scalar whose backward is the user's own, once, each loss weighted
(:meth:`Engine.scalar`). Everything else works on per-task rows (:meth:`Engine.found`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...gradients import fsdp, functions, graph, task_gradients
from ...gradients.batch import Batch
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.shared_parameters import Sharing
from ...gradients.task_gradients import Found
from ...strategies import JacobianStrategy, LossStrategy
from ..arguments import check_sharded
from ..records import Step
from ..state.window import Window, reached
from . import write_grad
from .features import Representation
from .measure import Gatherer
from .validation_rows import Validation
from .weights import Weigher

Weighed = tuple[Step, Callable[[], Found]]


@dataclass
class Engine:
    """Chooses how a step is done, and does it."""

    gatherer: Gatherer
    validation: Validation
    representation: Representation

    @property
    def weigher(self) -> Weigher:
        """From losses and rows to weights."""
        return self.gatherer.weigher

    @property
    def sharing(self) -> Sharing:
        """The parameters and who reaches them."""
        return self.gatherer.sharing

    @property
    def ranks(self) -> Ranks:
        """The processes that train the model."""
        return self.weigher.ranks

    @property
    def window(self) -> Window | None:
        """Of gradient accumulation."""
        return self.gatherer.window

    @property
    def one_pass(self) -> bool:
        """The scalar's own backward does all: no rows, nothing written here."""
        loss_based = isinstance(self.weigher.strategy, LossStrategy)
        return loss_based and not self.weigher.plain_heads and self.window is None

    def scalar(
        self, present: list[int], values: list[Tensor], counts: list[Any], done: Callable[[Step], None]
    ) -> Tensor:
        """The objective [] of a LossStrategy; ``done(step)`` is called when its backward starts."""
        step = self.weigher.step(present, values, counts)
        value = self.weigher.combine(step)
        mine = step.trunk
        assert isinstance(mine, Tensor)
        if self.ranks.number > 1:
            mine = mine[[step.present.index(i) for i in present]]
            mine = mine * torch.stack(write_grad.shares(step, present, counts)) * self.ranks.number
        scalar: Tensor = functions.Weighted.apply(  # type: ignore[no-untyped-call]
            value, mine, partial(done, step), *values
        )
        return scalar

    def meet(self, present: list[int], values: list[Tensor]) -> tuple[Leaves, list[Tensor]]:
        """The leaves of these losses, and those the scalar is to hang on.

        In an open window, which gives no gradient yet, not those with hooks: they would be called with None.
        """
        alone = self.ranks.number == 1 and self.ranks.wrapper is None and not self.sharing.sharded
        leaves = self.sharing.meet(present, values, everywhere=self.ranks.number > 1)
        if leaves.replayed and self.gatherer.mode != "features":
            self._refuse_replays(values)
        if not alone:
            return leaves, []
        if self.window is None:
            return leaves, leaves.params
        every = {id(param): param for param in [*leaves.params, *self.window.params()]}
        closes = self.window.closes()
        return leaves, [p for p in every.values() if closes or not p._backward_hooks]

    def _refuse_replays(self, values: list[Tensor], below: Tensor | None = None) -> None:
        """Raise ValueError if passes of two losses would go through one captured CUDA graph.

        It may go backward once for each forward: its second backward finds the activations written over.
        """
        stop = None if below is None else below.grad_fn
        captured = [node for value in values for node in graph.captured(value, stop)]
        if len(set(captured)) < len(captured):
            raise ValueError(
                "A model captured by torch.cuda.make_graphed_callables can go backward once per forward, and "
                f"{type(self.weigher.strategy).__name__} needs a pass per task: use gradients='features' at "
                "its output, a loss-based strategy, or no capture of what the tasks share."
            )

    def found(self, batch: Batch, decided: Callable[[Step], None]) -> Found:
        """Weigh: the step's gradients, times the incoming factor.

        ``decided(step)`` is called before the last pass: an optimizer may step as soon as its parameter has a
        gradient. Inside an accumulation window nothing is decided yet, and nothing found.
        """
        weighed = self._weigh(batch)
        if weighed is None:
            return []
        step, write = weighed
        decided(step)
        return write()

    def _weigh(self, batch: Batch) -> Weighed | None:
        """The step, and what finds its gradients."""
        if self.sharing.sharded:
            return self._by_shards(batch)
        if self._rows_due(batch):
            if self.gatherer.mode == "features":
                return self._by_features(batch)
            if self._last_layer_suffices(batch):
                return self._measured_only(batch)
            return self._by_rows(batch)
        step = self.weigher.step(batch.present, batch.values, batch.counts, batch.leaves)
        if isinstance(self.weigher.strategy, LossStrategy):
            self.weigher.combine(step)
        else:
            self.weigher.hold(step, batch.factor)
        return step, partial(write_grad.spread, self.ranks, step, batch)

    def after_step(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Give the strategy the losses after the optimizer step, averaged over the ranks."""
        step = self.weigher.step(present, values, counts)
        self.weigher.strategy.after_step(step.losses, self.weigher.index(step))
        return step

    # which way --------------------------------------------------------------------------------------------

    def _tasks(self, present: list[int]) -> list[int]:
        """The tasks a choice of way may look at: under DDP all ranks must choose alike, so all."""
        return present if self.ranks.number == 1 else list(range(self.weigher.strategy.n_tasks))

    def _known(self, batch: Batch) -> bool:
        """What these tasks reach is known: at once on one rank, under DDP once it was agreed on."""
        return batch.leaves.reached_by(sum(1 << i for i in self._tasks(batch.present)))

    def _rows_due(self, batch: Batch) -> bool:
        """Rows are needed now: always, but for held weights and for a LossStrategy with plain heads."""
        weigher = self.weigher
        if self.window is not None or not self._known(batch):
            return True
        if isinstance(weigher.strategy, LossStrategy):
            return False
        held = weigher.every > 1 and not bool(weigher.state.held[:, self._tasks(batch.present)].isnan().any())
        return not held or int(weigher.strategy.step) % weigher.every == 0

    def _last_layer_suffices(self, batch: Batch) -> bool:
        """Rows over one layer, then one weighted pass, cost less than rows over everything."""
        last = self.weigher.strategy.measured_at == "last_shared"
        return last and self.window is None and self._known(batch) and not self.validation.waits

    def _balanced(self, leaves: Leaves, column: int) -> bool:
        """A direction is for shared parameters; of a single task at hand it is not known yet which are."""
        several = self.weigher.strategy.n_tasks > 1 and isinstance(self.sharing.shared, str)
        return not several or leaves.known[column].tasks.bit_count() >= 2

    def _measured(self, leaves: Leaves, present: list[int]) -> list[int]:
        return self.sharing.measured(leaves, self.weigher.strategy.measured_at, present, self.ranks.first)

    # with rows --------------------------------------------------------------------------------------------

    def _by_rows(self, batch: Batch) -> Weighed | None:
        """Every task's gradient in full; the step's gradient is made of them."""
        gathered = self.gatherer.gather(batch, list(range(len(batch.leaves.params))), batch.retain_graph)
        if gathered is None:
            return None
        step, rows, factor, leaves = gathered
        pieces: dict[int, Tensor] = {}
        if isinstance(self.weigher.strategy, LossStrategy):
            self.weigher.combine(step)
        else:
            at, params = self._measured(leaves, step.present), leaves.params
            if isinstance(self.weigher.strategy, JacobianStrategy):
                pieces = self.weigher.direct(step, rows, at, params, factor, leaves.names)
                pieces = {k: piece for k, piece in pieces.items() if self._balanced(leaves, k)}
            else:
                extra, losses = self.validation.take(np.array(step.present), rows, params, factor)
                self.weigher.solve(step, task_gradients.gramian([*rows, *extra], at), factor, losses)
        return step, partial(write_grad.combine, leaves, step, rows, pieces)

    def _by_shards(self, batch: Batch) -> Weighed | None:
        """This rank's part of every row (FSDP2), whose Gramians add up."""
        strategy, model, leaves = self.weigher.strategy, self.sharing.model, batch.leaves
        assert model is not None
        check_sharded(strategy, self.gatherer.mode)
        fsdp.check_present(batch.present, strategy.n_tasks, batch.values[0], self.ranks)
        step = self.weigher.step(batch.present, batch.values, batch.counts)
        fsdp.check_mesh(leaves.params[0], self.ranks)
        shares = write_grad.shares(step, batch.present, batch.counts)
        seeds = [batch.factor * share * self.ranks.number for share in shares]
        due, factor = self._rows_due(batch), batch.factor
        rows = fsdp.rows(model, batch.values, leaves.params, seeds, batch.retain_graph)
        if self.window is not None:  # of rows that are averaged over the ranks already
            whole = replace(batch, present=step.present, values=list(step.losses), counts=list(step.items()))
            gathered = self.gatherer.keep(whole, rows, averaged=True)
            if gathered is None:
                return None
            step, rows, factor, leaves = gathered
        else:
            leaves.learn(reached(step.present, rows))
        if isinstance(strategy, LossStrategy):
            self.weigher.combine(step)
        elif due:
            gram = task_gradients.gramian(rows, self._measured(leaves, step.present))
            self.weigher.solve(step, fsdp.add_grams(gram, leaves.params[0]), factor)
        else:
            self.weigher.hold(step, factor)
        return step, partial(write_grad.combine, leaves, step, rows, {})

    def _measured_only(self, batch: Batch) -> Weighed:
        """Rows over the measured layer alone, then the weighted pass."""
        measured = self._measured(batch.leaves, batch.present)
        gathered = self.gatherer.gather(batch, measured, retain_graph=True)
        assert gathered is not None
        step, rows, factor, _ = gathered
        self.weigher.solve(step, task_gradients.gramian(rows, range(len(measured))), factor)
        return step, partial(write_grad.spread, self.ranks, step, batch)

    def _by_features(self, batch: Batch) -> Weighed:
        """Rows at the representation alone, then the weighted pass.

        The samples of two ranks have no element of it in common: their Gramians add up.
        """
        z = self.representation.take()
        step = self.weigher.step(batch.present, batch.values, batch.counts, batch.leaves)
        if batch.leaves.replayed:
            self._refuse_replays(batch.values, z)
        rows = task_gradients.rows(batch.values, [z], batch.factor, retain_graph=True)
        for i, row in zip(batch.present, rows, strict=True):
            if row[0] is None:
                raise ValueError(
                    f"The loss of {self.sharing.tasks[i]!r} does not pass through the representation given "
                    "as features: name the module all heads start from, or use gradients='auto'."
                )
        gram = task_gradients.gramian(rows, [0])
        if self.ranks.number > 1:
            shares = torch.stack(write_grad.shares(step, batch.present, batch.counts)).to(gram)
            at = [step.present.index(i) for i in batch.present]
            gram = self.ranks.add_grams(gram * shares * shares[:, None], at, len(step.present))
        self.weigher.solve(step, gram, batch.factor)
        return step, partial(write_grad.spread, self.ranks, step, batch)
