"""The rows of a step: of one batch, of a window of them, of all ranks."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from . import factors, gradients
from .gradients import Row
from .graph import Use
from .sharing import Sharing
from .step import Batch, Step
from .strategies import GramStrategy
from .weighing import Weigher
from .window import Window, unstack


@dataclass
class Gatherer:
    """Computes rows, and keeps those of an open window."""

    weigher: Weigher
    sharing: Sharing
    window: Window | None
    mode: str  #: "auto", "rows", "features" or "gramian"
    factored: dict[int, int] = field(default_factory=dict)  #: column -> elements per task, instead of a row

    def gather(
        self, batch: Batch, columns: list[int], retain_graph: bool
    ) -> tuple[Step, list[Row], Tensor] | None:
        """The rows of all tasks present on any rank, averaged, and their factor.

        None in an open window, or if no task has a row in each of the window's batches.
        """
        params = [self.sharing.params[c] for c in columns]
        plan = self._plan(batch.values, params)
        self.factored = {columns[k]: factors.elements(params[k], uses) for k, uses in plan.items()}
        rows = gradients.rows(batch.values, params, batch.factor, retain_graph=retain_graph, factored=plan)
        if self.window is not None:
            return self.keep(batch, rows, params)
        if self.weigher.ranks.number == 1:
            return self.weigher.step(batch.present, batch.values, batch.counts), rows, batch.factor
        return (*self._average(batch, rows, params), batch.factor)

    def keep(
        self, batch: Batch, rows: list[Row], params: list[Tensor] | None = None
    ) -> tuple[Step, list[Row], Tensor] | None:
        """Add the rows of a micro-batch to the window; those of all of it when it closes, else None.

        They are averaged over the ranks then, but without ``params``: each micro-batch's were.
        """
        assert self.window is not None
        closes = self.window.closes()
        self.window.add(batch, rows)
        if not closes:
            return None
        batch, rows = self.window.take()
        if params is None or self.weigher.ranks.number == 1:
            step = self.weigher.alone(batch.present, batch.values, batch.counts)
        else:
            step, rows = self._average(batch, rows, params)
        n_tasks, k = self.weigher.strategy.n_tasks, self.weigher.batches
        stacked = (step, rows) if k == 1 else unstack(step, rows, k, n_tasks)
        return None if stacked is None else (*stacked, batch.factor)

    def _average(self, batch: Batch, rows: list[Row], params: list[Tensor]) -> tuple[Step, list[Row]]:
        places = self.weigher.strategy.n_tasks * self.weigher.batches
        found = self.weigher.ranks.mean_rows(rows, batch.values, batch.present, batch.counts, params, places)
        present, rows, losses, counts = found
        return Step(present, losses, counts), rows

    def _plan(self, values: list[Tensor], params: list[Tensor]) -> dict[int, list[Use]]:
        """The weights whose gradients can and should stay factors."""
        strategy = self.weigher.strategy
        gramian = isinstance(strategy, GramStrategy) and not strategy.validation_rows
        alone = self.window is None and self.weigher.ranks.number == 1
        if not (gramian and alone) or self.sharing.compiled or self.mode in ("rows", "features"):
            return {}
        return factors.plan(values, params, self.mode == "gramian")
