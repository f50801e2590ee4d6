"""From losses, a Gramian or a Jacobian to weights: the only callers of a strategy's method."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...gradients import task_gradients
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.task_gradients import Row, full_precision
from ...strategies import ALL, GramStrategy, Index, JacobianStrategy, LossStrategy, Strategy
from ...strategies.base import Weights
from ..records import Step
from ..state.state import State
from .normalise import divisors

TINY = 1e-30  #: a weight below this, or above its inverse, is not for float32
CANCELS = 8.0  #: a direction this much shorter than its terms' lengths together is summed in float64
FIRST_LOOKS, LOOK_EVERY = 4, 100  #: when losses on a device are read for their signs
ROUNDING = 1e-6  #: of the largest loss of the step


@dataclass
class Weigher:
    """A strategy and its state. ``heads``: "plain", "weighted" or "paper"; m tasks present."""

    strategy: Strategy
    state: State
    heads: str
    every: int
    smoothing: float
    ranks: Ranks
    tasks: Sequence[str] = ()  #: names, for messages
    normalise: str | None = None  #: "l2" or "loss": what the strategy sees every gradient divided by
    looks: int = 0  #: steps in which losses on a device might have been read for their signs

    @property
    def plain_heads(self) -> bool:
        """Parameters of one task get its unweighted gradient."""
        return (self.strategy.heads if self.heads == "paper" else self.heads) == "plain"

    def step(
        self, present: list[int], values: list[Tensor], counts: list[Any], leaves: Leaves | None = None
    ) -> Step:
        """Losses and counts, averaged over the ranks, which agree on who reaches ``leaves``."""
        if self.ranks.number > 1:
            return Step(*self.ranks.mean_losses(values, present, counts, self.strategy.n_tasks, leaves))
        return self.alone(present, values, counts)

    def alone(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Losses and counts as they are."""
        losses = torch.stack([v.detach().to(values[0].device) for v in values])
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        return Step(present, losses, counts)

    def index(self, step: Step) -> Index:
        """``present`` as strategies on the device take it: no copy to it when no task is missing."""
        return self.state.at(step.present)

    def combine(self, step: Step) -> Tensor:
        """Run a LossStrategy: the objective [], weights, gradients of its learned parameters."""
        assert isinstance(self.strategy, LossStrategy)
        self.refuse_negative(step)
        objective = partial(self.strategy.combine, present=self.index(step))
        with full_precision(), self.state.trial() as step.buffers:
            value, weights, learned = task_gradients.differentiate(
                objective, step.losses, list(self.state.learned.params.values())
            )
        every = [step.losses, weights, *(gradient.flatten() for gradient in learned)]
        step.ok = torch.isfinite(torch.cat(every)).all()
        step.trunk = torch.where(step.ok, weights, torch.nan)
        step.heads = (
            torch.where(step.ok, torch.ones_like(weights), torch.nan) if self.plain_heads else step.trunk
        )
        step.gradients = dict(zip(self.state.learned.params, learned, strict=True))
        return value

    def solve(self, step: Step, gram: Tensor, factor: Tensor, validation: Tensor | None = None) -> None:
        """Run a GramStrategy on the host, after the step's one copy to it.

        Args:
            step: gets the weights; m tasks.
            gram: of one row per task (of k batches: per batch and task), scaled by ``factor``, then of the
                unscaled rows of v validation losses.
            factor: [], divided out.
            validation: their losses [v].
        """
        assert isinstance(self.strategy, GramStrategy)
        extra = step.losses[:0] if validation is None else validation
        m, k, n = len(step.present), len(gram), len(gram) - len(extra)
        if self.strategy.batches > 1:
            step.stack = np.full((2, n), np.nan)
        host = self.state.host(gram.flatten(), step.losses, extra, factor)
        scale = np.where(np.arange(k) < n, host[-1], 1.0)
        with np.errstate(all="ignore"):
            full = host[: k * k].reshape(k, k) / np.outer(scale, scale)
        step.gram, losses = full[:m, :m], host[k * k : -1]
        if not (np.isfinite(full).all() and np.isfinite(losses).all()):
            return step.spoil()
        self.refuse_negative(step, losses[:m])
        with full_precision(), self.state.trial() as step.buffers:
            out = self._weigh(full, losses, np.array(step.present))
        for name, param in self.state.learned.params.items():
            if param.grad is not None:
                step.gradients[name], param.grad = param.grad, None
        trunk, heads = out if isinstance(out, tuple) else (out, None)
        if heads is None or self.heads != "paper":
            heads = np.full(n, 1 / self.strategy.batches) if self.plain_heads else trunk
        weights = np.stack([trunk, heads])
        if step.stack is not None:
            step.stack, weights = weights, weights.reshape(2, self.strategy.batches, m).sum(1)
        self._keep(step, weights)
        per_row = step.trunk if step.stack is None else step.stack[0]
        step.wide = _too_short(full[:n, :n], np.asarray(per_row))

    def _weigh(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> Weights:
        """The strategy's weights, for the gradients as they are also where it sees normalised ones."""
        assert isinstance(self.strategy, GramStrategy)
        if self.normalise is None:
            return self.strategy.weights(gram, losses, present)
        by = divisors(self.normalise, gram, losses)
        with np.errstate(all="ignore"):
            seen = gram / by / by[:, None]
            if not np.isfinite(seen).all():
                return np.full(len(by), np.nan)
            out = self.strategy.weights(seen, losses, present)
            return (out[0] / by, out[1] / by) if isinstance(out, tuple) else out / by

    def _keep(self, step: Step, weights: np.ndarray) -> None:
        """Smooth new weights [2, m] with the last ones, and hold them where they will be used again."""
        if self.smoothing or self.every > 1:
            before = self.state.held[:, step.present].numpy()
            mixed = self.smoothing * before + (1 - self.smoothing) * weights
            weights = np.where(np.isnan(before), weights, mixed)
            step.held = self.state.held.clone()
            step.held[:, step.present] = torch.from_numpy(weights)
        step.trunk, step.heads = weights
        if not np.isfinite(weights).all():
            step.spoil()

    def hold(self, step: Step, factor: Tensor) -> None:
        """The weights of an earlier step again."""
        step.trunk, step.heads = self.state.held[:, step.present].numpy()
        if not np.isfinite(self.state.host(step.losses, factor)).all():
            step.spoil()

    def direct(
        self,
        step: Step,
        rows: list[Row],
        at: list[int],
        params: list[Tensor],
        factor: Tensor,
        names: list[str],
    ) -> dict[int, Tensor]:
        """Run a JacobianStrategy: its direction times ``factor``, by place of the parameter."""
        assert isinstance(self.strategy, JacobianStrategy)
        matrix = task_gradients.jacobian(rows, at, params) / factor
        if not bool(torch.isfinite(matrix).all() & torch.isfinite(step.losses).all()):
            step.spoil()
            return {}
        self.refuse_negative(step)
        self.state.rows.lend(step.present, {names[c]: task_gradients.size(params[c]) for c in at}, matrix)
        with full_precision(), self.state.trial() as step.buffers:
            whole = len(step.present) == self.strategy.n_tasks
            present = ALL if whole else np.array(step.present)
            out = self.strategy.direction(matrix, step.losses, present)
        step.rows = self.state.rows.take_back()
        direction, weights = out if isinstance(out, tuple) else (out, None)
        step.trunk = weights
        step.heads = None if self.plain_heads else weights
        step.ok = torch.isfinite(direction).all()
        sparse = [task_gradients.is_sparse(rows, c) for c in at]
        return task_gradients.unflatten(direction * factor, at, params, sparse)

    def refuse_negative(self, step: Step, losses: np.ndarray | None = None) -> None:
        """Raise for a negative loss under a strategy of ``positive_losses``; rounding below 0 is none.

        Losses on a device that are not at hand on the host (``losses`` [m]) are read in the first steps and
        then now and again: a read in every step would make the host wait for the device.
        """
        if not (self.strategy.positive_losses or self.normalise == "loss"):
            return
        if losses is None:
            if step.losses.device.type != "cpu":
                self.looks += 1
                if self.looks > FIRST_LOOKS and self.looks % LOOK_EVERY:
                    return
            if hasattr(step.losses, "fake_mode"):  # a fake tensor, which has no values
                return
        values = (step.losses if losses is None else losses).tolist()
        least = min(values)
        if least < -ROUNDING * max(map(abs, values)) and all(map(math.isfinite, values)):
            index = step.present[values.index(least)]
            raise ValueError(
                f"{type(self.strategy).__name__} needs losses of at least 0, found {least:.4g} for "
                f"{self.tasks[index] if self.tasks else index!r}: add a constant to that loss, or use a "
                "strategy that takes negative ones, such as equal or pcgrad."
            )


def _too_short(gram: np.ndarray, weights: np.ndarray) -> bool:
    """Whether float32 would lose ``sum_i weights_i row_i``, of rows with this Gramian [n, n].

    The terms cancel, and their rounding errors are those of their own lengths; or a weight is near the ends
    of float32's range, where its product with a row still may be far from them.
    """
    size = np.abs(weights)
    total = size @ np.sqrt(np.diagonal(gram))
    extreme = (size > 1 / TINY) | ((size < TINY) & (size > 0))
    return bool(extreme.any() or weights @ gram @ weights < (total / CANCELS) ** 2)
