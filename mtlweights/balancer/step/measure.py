"""What the strategy looks at, measured the cheapest way: task gradients of a batch, a window, all ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...gradients import factored, fsdp, task_gradients
from ...gradients.batch import Batch
from ...gradients.batched import Batched
from ...gradients.exchange import Exchange, Plan
from ...gradients.graph import Use
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.shared_parameters import Sharing
from ...gradients.task_gradients import Own, Row
from ...strategies import GramStrategy, LossStrategy
from ..arguments import check_replays, check_sharded
from ..records import Measured, Step
from ..state.window import Window, reached, unstack
from .features import Representation
from .validation_rows import Validation
from .weights import Weigher


@dataclass
class Measure:
    """The ways of measuring; calling it takes the cheapest that gives the strategy what it looks at."""

    weigher: Weigher
    sharing: Sharing
    ranks: Ranks
    window: Window | None
    validation: Validation
    representation: Representation
    exchange: Exchange
    #: parameter -> elements that are kept of it per task, instead of a row
    factored: dict[str, int] = field(default_factory=dict)
    #: takes rows; ``gradients="rows"`` in a pass per task
    batched: Batched = field(default_factory=Batched)

    def __call__(self, batch: Batch) -> Measured | None:
        """What was found; None in an open window, or if no task has a row in each of its batches."""
        if self.sharing.sharded:
            return self._of_shards(batch)
        if not self._rows_due(batch):
            step = self.losses(batch.present, batch.values, batch.counts, batch.leaves)
            return Measured(step, batch.factor, batch.leaves)
        if self.mode == "features":
            return self._of_features(batch)
        return self._of_last_layer(batch) if self._last_layer_suffices(batch) else self._of_all(batch)

    @property
    def mode(self) -> str:
        """Where and how gradients are measured, ``Balancer(gradients=)``."""
        return self.weigher.options.gradients

    @property
    def loss_based(self) -> bool:
        """The strategy looks at losses alone."""
        return isinstance(self.weigher.strategy, LossStrategy)

    def losses(
        self, present: list[int], values: list[Tensor], counts: list[Any], leaves: Leaves | None = None
    ) -> Step:
        """Losses and counts, averaged over the ranks, which agree on who reaches ``leaves``."""
        if self.ranks.number == 1:
            return _local(present, values, counts)
        n_tasks = self.weigher.strategy.n_tasks
        return Step(*self.ranks.mean_losses(values, present, counts, n_tasks, leaves))

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
        if self.loss_based:
            return False
        every = weigher.options.every
        if every == 1 or int(weigher.strategy.step) % every == 0:
            return True
        return bool(weigher.state.held[:, self._tasks(batch.present)].isnan().any())

    def _last_layer_suffices(self, batch: Batch) -> bool:
        """Rows over one layer, then one weighted pass, cost less than rows over everything."""
        last = self.weigher.strategy.measured_at == "last_shared"
        whole = self.window is not None or self.weigher.groups is not None
        return last and not whole and self._known(batch) and not self._validated

    @property
    def _validated(self) -> bool:
        """Gradients of a validation batch join this step's."""
        return "validate" in self.weigher.strategy.hooks() and self.validation.waits

    def _places(self, leaves: Leaves, present: list[int]) -> list[int]:
        """The leaves that are measured."""
        where = "shared" if self.weigher.groups is not None else self.weigher.strategy.measured_at
        return self.sharing.measured(leaves, where, present, self.ranks.first)

    # the ways ---------------------------------------------------------------------------------------------

    def _of_all(self, batch: Batch) -> Measured | None:
        """Every task's gradient in full."""
        columns = range(len(batch.leaves.params))
        if self.window is None:
            found = self._averaged(batch, columns, batch.retain_graph, whole=True)
        else:
            rows = self._rows(batch, columns, batch.retain_graph)
            closed = self._close(batch, rows, averaged=False)
            if closed is None:
                return None
            found = closed
        if not self.loss_based:
            present, params = np.array(found.step.present), found.leaves.params
            found.at = self._places(found.leaves, found.step.present)
            if self._validated:
                found.validation = self.validation.take(present, found.rows, params, found.factor)
        return found

    def _of_last_layer(self, batch: Batch) -> Measured:
        """Rows over the measured layer alone."""
        columns = self._places(batch.leaves, batch.present)
        found = self._averaged(batch, columns, retain_graph=True, whole=False)
        found.at = list(range(len(columns)))
        return found

    def _of_features(self, batch: Batch) -> Measured:
        """Rows at the representation alone.

        The samples of two ranks have no element of it in common: their Gramians add up.
        """
        z = self.representation.take()
        step = self.losses(batch.present, batch.values, batch.counts, batch.leaves)
        if batch.leaves.replayed:
            check_replays(batch.values, self.weigher.strategy, z)
        rows = task_gradients.rows(batch.values, [z], batch.factor, retain_graph=True)
        for i, row in zip(batch.present, rows, strict=True):
            if row[0] is None:
                raise ValueError(
                    f"The loss of {self.sharing.tasks[i]!r} does not pass through the representation given "
                    "as features: name the module all heads start from, or use gradients='auto'."
                )
        found = Measured(step, batch.factor, batch.leaves, rows, [0])
        if self.ranks.number > 1:
            found.add = partial(self._add_over_ranks, batch, step)
        return found

    def _add_over_ranks(self, batch: Batch, step: Step, gram: Tensor) -> Tensor:
        shares = torch.stack(step.shares(batch.present, batch.counts)).to(gram)
        at = [step.present.index(i) for i in batch.present]
        return self.ranks.add_grams(gram * shares * shares[:, None], at, len(step.present))

    def _of_shards(self, batch: Batch) -> Measured | None:
        """This rank's part of every row (FSDP2), whose Gramians add up."""
        strategy, model, leaves = self.weigher.strategy, self.sharing.model, batch.leaves
        assert model is not None
        check_sharded(strategy, self.mode)
        fsdp.check_present(batch.present, strategy.n_tasks, batch.values[0], self.ranks)
        step = self.losses(batch.present, batch.values, batch.counts)
        fsdp.check_mesh(leaves.params[0], self.ranks)
        shares = step.shares(batch.present, batch.counts)
        seeds = [batch.factor * share * self.ranks.number for share in shares]
        due = self._rows_due(batch)
        rows = fsdp.rows(model, batch.values, leaves.params, seeds, batch.retain_graph)
        if self.window is None:
            leaves.learn(reached(step.present, rows))
            found = Measured(step, batch.factor, leaves, rows, whole=True)
        else:
            whole = replace(batch, present=step.present, values=list(step.losses), counts=list(step.items()))
            closed = self._close(whole, rows, averaged=True)
            if closed is None:
                return None
            found = closed
        if due and not self.loss_based:
            found.at = self._places(found.leaves, found.step.present)
            found.add = partial(fsdp.add_grams, param=leaves.params[0])
        return found

    # their parts ------------------------------------------------------------------------------------------

    def _averaged(self, batch: Batch, columns: Sequence[int], retain_graph: bool, whole: bool) -> Measured:
        """Losses and rows of all tasks present on any rank; gradients are made of the rows if ``whole``."""
        leaves, n_tasks = batch.leaves, self.weigher.strategy.n_tasks
        if not (self._factors and self.exchange.possible(batch.values[0].device)):
            step, rows = self._average(batch, self._rows(batch, columns, retain_graph), columns)
            return Measured(step, batch.factor, leaves, rows, whole=whole)
        where = "shared" if self.weigher.groups is not None else self.weigher.strategy.measured_at
        plan = self.exchange.plan(
            batch, columns, n_tasks, self.sharing.unmeasured(leaves, where) if whole else None
        )
        rows = self._rows(batch, columns, retain_graph, plan)
        averaged, rows = self.exchange.average(plan, rows, batch, columns, n_tasks)
        apart = [c for k, c in enumerate(columns) if any(isinstance(row[k], Own) for row in rows)]
        return Measured(Step(*averaged), batch.factor, leaves, rows, whole=whole, apart=apart)

    def _rows(
        self, batch: Batch, columns: Sequence[int], retain_graph: bool, agreed: Plan | None = None
    ) -> list[Row]:
        """This rank's rows over ``columns``."""
        params, names = [batch.leaves.params[c] for c in columns], batch.leaves.names
        if agreed is None:
            plan = self._plan(batch, params)
        else:
            plan = {k: agreed.uses[c] for k, c in enumerate(columns) if c in agreed.uses}
        self.factored = {names[columns[k]]: factored.elements(params[k], uses) for k, uses in plan.items()}
        graph = None if self.mode == "rows" else batch.leaves.graph
        return task_gradients.rows(
            batch.values,
            params,
            batch.factor,
            retain_graph=retain_graph,
            factored=plan,
            passes=partial(self.batched, graph),
        )

    @property
    def _factors(self) -> bool:
        """Gradients may stay factors: a Gramian and a weighted sum of this call's rows are asked for."""
        strategy = self.weigher.strategy
        gramian = isinstance(strategy, GramStrategy) and "validate" not in strategy.hooks()
        return gramian and self.window is None and self.mode not in ("rows", "features")

    def _plan(self, batch: Batch, params: list[Tensor]) -> dict[int, list[Use]]:
        """The weights whose gradients can and should stay factors, on a single rank."""
        walk = batch.leaves.graph
        if walk is None or walk.compiled or not self._factors or self.ranks.number > 1:
            return {}
        return factored.plan(walk, len(batch.values), params, self.mode == "gramian")

    def _average(self, batch: Batch, rows: list[Row], columns: Sequence[int]) -> tuple[Step, list[Row]]:
        """Losses and rows of all tasks present on any rank."""
        if self.ranks.number == 1:
            return _local(batch.present, batch.values, batch.counts), rows
        strategy = self.weigher.strategy
        found, rows, _ = self.ranks.mean_rows(rows, batch, columns, strategy.n_tasks, strategy.batches)
        return Step(*found), rows

    def _close(self, batch: Batch, rows: list[Row], averaged: bool) -> Measured | None:
        """Add a micro-batch to the window; if that closes it, what all of it has found, else None.

        Its rows are averaged over the ranks then, unless each micro-batch's were.
        """
        assert self.window is not None
        closes = self.window.closes()
        self.window.add(batch, rows)
        if not closes:
            return None
        several = self.ranks.number > 1
        params = self.window.params()
        leaves = self.sharing.arrange(self.sharing.record.everything(params) if several else params)
        leaves.here = [self.window.tasks.get(id(param), 0) for param in leaves.params]
        batch, rows = self.window.take(leaves)
        if several and not averaged:
            step, rows = self._average(batch, rows, range(len(leaves.params)))
        else:
            leaves.learn(leaves.here)
            step = _local(batch.present, batch.values, batch.counts)
        k, n_tasks = self.weigher.strategy.batches, self.weigher.strategy.n_tasks
        stacked = (step, rows) if k == 1 else unstack(step, rows, k, n_tasks)
        return None if stacked is None else Measured(stacked[0], batch.factor, leaves, stacked[1], whole=True)


def _local(present: list[int], values: Sequence[Tensor], counts: list[Any]) -> Step:
    """Losses and counts as this process has them."""
    losses = torch.stack([v.detach().to(values[0].device) for v in values])
    return Step(present, losses.to(torch.promote_types(losses.dtype, torch.float32)), counts)
