"""The rows of a step: of one batch, of a window of them, of all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ...gradients import factored, task_gradients
from ...gradients.batch import Batch
from ...gradients.graph import Use
from ...gradients.leaves import Leaves
from ...gradients.shared_parameters import Sharing
from ...gradients.task_gradients import Row
from ...strategies import GramStrategy
from ..records import Step
from ..state.window import Window, unstack
from .weights import Weigher

Gathered = tuple[Step, list[Row], Tensor, Leaves]


@dataclass
class Gatherer:
    """Computes rows, and keeps those of an open window."""

    weigher: Weigher
    sharing: Sharing
    window: Window | None
    mode: str  #: "auto", "rows", "features" or "gramian"
    factored: dict[str, int] = field(
        default_factory=dict
    )  #: parameter -> elements per task, instead of a row

    def gather(self, batch: Batch, columns: list[int], retain_graph: bool) -> Gathered | None:
        """The rows over ``columns`` of all tasks present on any rank, averaged, and their factor and leaves.

        None in an open window, or if no task has a row in each of the window's batches.
        """
        params = [batch.leaves.params[c] for c in columns]
        plan = self._plan(batch, params)
        names = batch.leaves.names
        self.factored = {names[columns[k]]: factored.elements(params[k], uses) for k, uses in plan.items()}
        rows = task_gradients.rows(
            batch.values, params, batch.factor, retain_graph=retain_graph, factored=plan
        )
        if self.window is not None:
            return self.keep(batch, rows)
        if self.weigher.ranks.number > 1:
            step, rows = self._average(batch, rows, columns)
        else:
            step = self.weigher.step(batch.present, batch.values, batch.counts)
        return step, rows, batch.factor, batch.leaves

    def keep(self, batch: Batch, rows: list[Row], averaged: bool = False) -> Gathered | None:
        """Add the rows of a micro-batch to the window; those of all of it when it closes, else None.

        They are averaged over the ranks then, unless each micro-batch's were.
        """
        assert self.window is not None
        closes = self.window.closes()
        self.window.add(batch, rows)
        if not closes:
            return None
        several = self.weigher.ranks.number > 1
        params = self.window.params()
        leaves = self.sharing.arrange(self.sharing.record.everything(params) if several else params)
        leaves.here = [self.window.tasks.get(id(param), 0) for param in leaves.params]
        batch, rows = self.window.take(leaves)
        n_tasks, k = self.weigher.strategy.n_tasks, self.weigher.strategy.batches
        if several and not averaged:
            step, rows = self._average(batch, rows, list(range(len(leaves.params))))
        else:
            leaves.learn(leaves.here)
            step = self.weigher.alone(batch.present, batch.values, batch.counts)
        stacked = (step, rows) if k == 1 else unstack(step, rows, k, n_tasks)
        return None if stacked is None else (*stacked, batch.factor, leaves)

    def _average(self, batch: Batch, rows: list[Row], columns: list[int]) -> tuple[Step, list[Row]]:
        weigher = self.weigher
        averaged, rows = weigher.ranks.mean_rows(
            rows, batch, columns, weigher.strategy.n_tasks, weigher.strategy.batches
        )
        return Step(*averaged), rows

    def _plan(self, batch: Batch, params: list[Tensor]) -> dict[int, list[Use]]:
        """The weights whose gradients can and should stay factors."""
        strategy, graph = self.weigher.strategy, batch.leaves.graph
        gramian = isinstance(strategy, GramStrategy) and "validate" not in strategy.hooks()
        alone = self.window is None and self.weigher.ranks.number == 1
        if graph is None or graph.compiled or not (gramian and alone) or self.mode in ("rows", "features"):
            return {}
        return factored.plan(graph, len(batch.values), params, self.mode == "gramian")
