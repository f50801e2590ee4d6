"""One training step: from losses to weights to ``.grad``.

Two ways. A LossStrategy returns a scalar whose backward is the user's own, once, each loss weighted
(:meth:`Engine.scalar`). Everything else works on per-task rows and writes ``.grad`` (:meth:`Engine.write`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from . import gradients, sharded, writing
from .distributed import Ranks
from .gathering import Gatherer
from .representation import Representation
from .sharing import Sharing
from .step import Batch, Step
from .strategies import JacobianStrategy, LossStrategy
from .validation import Validation
from .weighing import Weigher
from .window import Window

Weighed = tuple[Step, Callable[[], None]]


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
            mine = mine * torch.stack(writing.shares(step, present, counts)) * self.ranks.number
        scalar: Tensor = gradients.Weighted.apply(  # type: ignore[no-untyped-call]
            value, mine, partial(done, step), *values
        )
        return scalar

    def write(self, batch: Batch, decided: Callable[[Step], None]) -> None:
        """Weigh, and add the step's gradient, times the incoming factor, to every ``.grad``.

        ``decided(step)`` is called in between: an optimizer may step as soon as its parameter has a gradient.
        Inside an accumulation window nothing is decided yet, and nothing written.
        """
        found = self._weigh(batch)
        if found is not None:
            step, write = found
            decided(step)
            write()

    def _weigh(self, batch: Batch) -> Weighed | None:
        """The step, and what writes its gradient."""
        self.sharing.meet(batch.present, batch.values)
        columns = self.sharing.trainable()
        if self.sharing.sharded:
            return self._by_shards(batch, columns)
        if self._rows_due(batch.present):
            if self._last_layer_suffices(batch.present):
                return self._measured_only(batch, columns)
            if self.gatherer.mode == "features":
                return self._by_features(batch, columns)
            return self._by_rows(batch, columns)
        step = self.weigher.step(batch.present, batch.values, batch.counts)
        if isinstance(self.weigher.strategy, LossStrategy):
            self.weigher.combine(step)
        else:
            self.weigher.hold(step, batch.factor)
        return step, partial(writing.spread, self.ranks, self.sharing, step, batch, columns)

    def after_step(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Give the strategy the losses after the optimizer step, averaged over the ranks."""
        step = self.weigher.step(present, values, counts)
        self.weigher.strategy.after_step(step.losses, self.weigher.index(step))
        return step

    # which way --------------------------------------------------------------------------------------------

    def _tasks(self, present: list[int]) -> list[int]:
        """The tasks a choice of way may look at: under DDP all ranks must choose alike, so all."""
        return present if self.ranks.number == 1 else list(range(self.weigher.strategy.n_tasks))

    def _known(self, present: list[int]) -> bool:
        """Rows have shown what these tasks reach."""
        return bool(self.sharing.reach[self._tasks(present)].any(1).all())

    def _rows_due(self, present: list[int]) -> bool:
        """Rows are needed now: always, but for held weights and for a LossStrategy with plain heads."""
        weigher, tasks = self.weigher, self._tasks(present)
        if self.window is not None or not self._known(present):
            return True
        if isinstance(weigher.strategy, LossStrategy):
            return False
        held = weigher.every > 1 and not bool(weigher.state.held[:, tasks].isnan().any())
        return not held or int(weigher.strategy.step) % weigher.every == 0

    def _last_layer_suffices(self, present: list[int]) -> bool:
        """Rows over one layer, then one weighted pass, cost less than rows over everything."""
        last = self.weigher.strategy.measured_at == "last_shared"
        return last and self.window is None and self._known(present) and not self.validation.waits

    # with rows --------------------------------------------------------------------------------------------

    def _by_rows(self, batch: Batch, columns: list[int]) -> Weighed | None:
        """Every task's gradient in full; the step's gradient is made of them."""
        gathered = self.gatherer.gather(batch, columns, batch.retain_graph)
        if gathered is None:
            return None
        step, rows, factor = gathered
        params = [self.sharing.params[c] for c in columns]
        self.sharing.update(step.present, rows[: len(step.present)], columns)
        pieces: dict[int, Tensor] = {}
        if isinstance(self.weigher.strategy, LossStrategy):
            self.weigher.combine(step)
        else:
            measured = self.sharing.measured(self.weigher.strategy.measured_at, step.present)
            place = {c: k for k, c in enumerate(columns)}
            at = [place[c] for c in measured]
            if isinstance(self.weigher.strategy, JacobianStrategy):
                names = [self.sharing.names[c] for c in columns]
                pieces = self.weigher.direct(step, rows, at, params, factor, names)
            else:
                extra, losses = self.validation.take(self.weigher.index(step), rows, params, factor)
                self.weigher.solve(step, gradients.gramian([*rows, *extra], at), factor, losses)
        return step, partial(writing.combine, self.sharing, step, rows, columns, pieces)

    def _by_shards(self, batch: Batch, columns: list[int]) -> Weighed | None:
        """This rank's part of every row (FSDP2), whose Gramians add up."""
        strategy, model = self.weigher.strategy, self.sharing.model
        assert model is not None
        sharded.check_fits(strategy, self.gatherer.mode)
        sharded.check_present(batch.present, strategy.n_tasks, batch.values[0], self.ranks)
        step = self.weigher.step(batch.present, batch.values, batch.counts)
        params = [self.sharing.params[c] for c in columns]
        sharded.check_mesh(params[0], self.ranks)
        shares = writing.shares(step, batch.present, batch.counts)
        seeds = [batch.factor * share * self.ranks.number for share in shares]
        due, factor = self._rows_due(batch.present), batch.factor
        rows = sharded.rows(model, batch.values, params, seeds, batch.retain_graph)
        if self.window is not None:  # of rows that are averaged over the ranks already
            gathered = self.gatherer.keep(
                Batch(step.present, list(step.losses), list(step.items()), factor), rows
            )
            if gathered is None:
                return None
            step, rows, factor = gathered
        self.sharing.update(step.present, rows[: len(step.present)], columns)
        if isinstance(strategy, LossStrategy):
            self.weigher.combine(step)
        elif due:
            measured = self.sharing.measured(strategy.measured_at, step.present)
            gram = gradients.gramian(rows, [columns.index(c) for c in measured])
            self.weigher.solve(step, sharded.add_grams(gram, params[0]), factor)
        else:
            self.weigher.hold(step, factor)
        return step, partial(writing.combine, self.sharing, step, rows, columns, {})

    def _measured_only(self, batch: Batch, columns: list[int]) -> Weighed:
        """Rows over the measured layer alone, then the weighted pass."""
        measured = self.sharing.measured(self.weigher.strategy.measured_at, batch.present)
        gathered = self.gatherer.gather(batch, measured, retain_graph=True)
        assert gathered is not None
        step, rows, factor = gathered
        gram = gradients.gramian(rows, range(len(measured)))
        self.weigher.solve(step, gram, factor)
        return step, partial(writing.spread, self.ranks, self.sharing, step, batch, columns)

    def _by_features(self, batch: Batch, columns: list[int]) -> Weighed:
        """Rows at the representation alone, then the weighted pass.

        The samples of two ranks have no element of it in common: their Gramians add up.
        """
        z = self.representation.take()
        if not self._known(batch.present):
            gathered = self.gatherer.gather(batch, columns, retain_graph=True)
            assert gathered is not None
            self.sharing.update(gathered[0].present, gathered[1], columns)
        step = self.weigher.step(batch.present, batch.values, batch.counts)
        rows = gradients.rows(batch.values, [z], batch.factor, retain_graph=True)
        for i, row in zip(batch.present, rows, strict=True):
            if row[0] is None:
                raise ValueError(
                    f"The loss of {self.sharing.tasks[i]!r} does not pass through the representation given "
                    "as features: name the module all heads start from, or use gradients='auto'."
                )
        gram = gradients.gramian(rows, [0])
        if self.ranks.number > 1:
            shares = torch.stack(writing.shares(step, batch.present, batch.counts)).to(gram)
            at = [step.present.index(i) for i in batch.present]
            gram = self.ranks.add_grams(gram * shares * shares[:, None], at, len(step.present))
        self.weigher.solve(step, gram, batch.factor)
        return step, partial(writing.spread, self.ranks, self.sharing, step, batch, columns)
