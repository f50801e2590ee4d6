"""From what was measured to weights, or to a direction.

The functions at the end are the only callers of a strategy's method: for the engine, and for the contract
suite. The strategy may change its state freely; it is put back, and the change given with the result.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...gradients import task_gradients, write_grad
from ...gradients.switches import full_precision
from ...strategies import GramStrategy, JacobianStrategy, LossStrategy, Strategy
from ...strategies.base import Weights
from ..options import Options
from ..records import Change, Measured, Step
from ..state.state import State
from . import group_weights
from .groups import Groups
from .normalise import divisors, undone

FIRST_LOOKS, LOOK_EVERY = 4, 100  #: when losses on a device are read for their signs
ROUNDING = 1e-6  #: of the largest loss of the step


@dataclass
class Weigher:
    """A strategy and its state; m tasks present."""

    strategy: Strategy
    state: State
    options: Options
    tasks: Sequence[str]  #: names, for messages
    groups: Groups | None = None  #: of parameters, each with a Gramian of its own
    looks: int = 0  #: steps in which losses on a device might have been read for their signs

    @property
    def plain_heads(self) -> bool:
        """Parameters of one task get its unweighted gradient."""
        heads = self.options.heads
        return (self.strategy.heads if heads == "paper" else heads) == "plain"

    def weigh(self, found: Measured) -> dict[int, Tensor]:
        """Ask the strategy; a direction's pieces by place of the leaf, where it, or each group, gives one."""
        match self.strategy:
            case JacobianStrategy():
                return self._direction(self.strategy, found)
            case LossStrategy():
                self.objective(found.step)
            case GramStrategy() if found.at is None:
                self._reuse(found)
            case GramStrategy() if self.groups is not None:
                return group_weights.solve(self, found)
            case GramStrategy():
                self._solve(self.strategy, found)
        return {}

    def objective(self, step: Step) -> Tensor:
        """Run a LossStrategy: the objective [], weights, gradients of its learned parameters."""
        assert isinstance(self.strategy, LossStrategy)
        self.refuse_negative(step)
        value, weights, step.change = call_loss(self.strategy, self.state, step.losses, step.present)
        every = [step.losses, weights, *(gradient.flatten() for gradient in step.change.gradients.values())]
        nothing = (torch.cat(every) * 0).sum()  # 0, or NaN where one of them is not finite
        step.change.ok, weights = nothing == 0, weights + nothing
        plain = torch.ones_like(weights) + nothing if self.plain_heads else weights
        step.per_row = weights, plain
        return value

    def _solve(self, strategy: GramStrategy, found: Measured) -> None:
        """Run a GramStrategy on the host, after the step's one copy to it; the factor is divided out.

        The rows, n for the m tasks of each of k batches, carry it; those of v validation losses do not.
        """
        step, (extra, values) = found.step, found.validation
        values = step.losses[:0] if values is None else values
        gram = task_gradients.gramian([*found.rows, *extra], found.at or [])
        gram = gram if found.add is None else found.add(gram)
        m, k, n = len(step.present), len(gram), len(gram) - len(extra)
        host = self.state.host(gram.flatten(), step.losses, values, found.factor)
        scale = np.where(np.arange(k) < n, host[-1], 1.0)
        with np.errstate(all="ignore"):
            full = host[: k * k].reshape(k, k) / np.outer(scale, scale)
        step.gram, losses = full[:m, :m], host[k * k : -1]
        if not (np.isfinite(full).all() and np.isfinite(losses).all()):
            return step.make_non_finite(n)
        self.refuse_negative(step, losses[:m])
        out, step.change = self._ask(strategy, full, losses, step.present)
        self._keep(step, self.pair(out))
        step.wide = write_grad.too_short(full[:n, :n], np.asarray(step.per_row[0]))

    def _ask(
        self, strategy: GramStrategy, gram: np.ndarray, losses: np.ndarray, present: list[int]
    ) -> tuple[Weights, Change]:
        """The strategy's weights, for the gradients as they are also where it sees normalised ones."""
        if self.options.normalise is None:
            return call_gram(strategy, self.state, gram, losses, present)
        by = divisors(self.options.normalise, gram, losses)
        with np.errstate(all="ignore"):
            seen = gram / by / by[:, None]
            if not np.isfinite(seen).all():
                return np.full(len(by), np.nan), Change()
            out, change = call_gram(strategy, self.state, seen, losses, present)
            return undone(out, by), change

    def pair(self, out: Weights) -> np.ndarray:
        """The weights [2, n] of shared parameters and of heads, from what a GramStrategy gave."""
        trunk, heads = out if isinstance(out, tuple) else (out, None)
        if heads is None or self.options.heads != "paper":
            heads = np.full(len(trunk), 1 / self.strategy.batches) if self.plain_heads else trunk
        return np.stack([trunk, heads])

    def mixed(self, weights: np.ndarray, before: np.ndarray) -> np.ndarray:
        """New weights smoothed with the last ones, where there are any."""
        smoothing = self.options.smoothing
        return np.where(np.isnan(before), weights, smoothing * before + (1 - smoothing) * weights)

    def _keep(self, step: Step, weights: np.ndarray) -> None:
        """Smooth new weights [2, n] with the last ones, and hold them where they will be used again."""
        if self.options.smoothing or self.options.every > 1:
            weights = self.mixed(weights, self.state.held[:, step.present].numpy())
            step.change.held = self.state.held.clone()
            step.change.held[:, step.present] = torch.from_numpy(weights)
        step.per_row = weights[0], weights[1]
        if not np.isfinite(weights).all():
            step.make_non_finite(weights.shape[1])

    def _reuse(self, found: Measured) -> None:
        """The weights of an earlier step again."""
        step = found.step
        trunk, heads = self.state.held[:, step.present].numpy()
        step.per_row = trunk, heads
        if not np.isfinite(self.state.host(step.losses, found.factor)).all():
            step.make_non_finite()

    def _direction(self, strategy: JacobianStrategy, found: Measured) -> dict[int, Tensor]:
        """Run a JacobianStrategy: its direction times the factor, by place of the leaf."""
        step, at, params = found.step, found.at or [], found.leaves.params
        matrix = task_gradients.jacobian(found.rows, at, params) / found.factor
        if not bool(torch.isfinite(matrix).all() & torch.isfinite(step.losses).all()):
            step.make_non_finite()
            return {}
        self.refuse_negative(step)
        names = found.leaves.names
        sizes = {names[c]: task_gradients.size(params[c]) for c in at}
        direction, weights, step.change = call_jacobian(
            strategy, self.state, matrix, step.losses, step.present, sizes
        )
        step.per_row = weights, None if self.plain_heads else weights
        step.change.ok = torch.isfinite(direction).all()
        sparse = [task_gradients.is_sparse(found.rows, c) for c in at]
        return task_gradients.unflatten(direction * found.factor, at, params, sparse)

    def refuse_negative(self, step: Step, losses: np.ndarray | None = None) -> None:
        """Raise for a negative loss under a strategy of ``positive_losses``; rounding below 0 is none.

        Losses on a device that are not at hand on the host (``losses`` [m]) are read in the first steps and
        then now and again: a read in every step would make the host wait for the device.
        """
        if not (self.strategy.positive_losses or self.options.normalise == "loss"):
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


def call_loss(
    strategy: LossStrategy, state: State, losses: Tensor, present: list[int]
) -> tuple[Tensor, Tensor, Change]:
    """The objective [], the weights [m], and what the strategy makes of its state."""
    learned = state.learned.params
    objective = partial(strategy.combine, present=state.at(present))
    with full_precision(), state.restoring() as change:
        value, weights, found = task_gradients.differentiate(objective, losses, list(learned.values()))
    change.gradients = dict(zip(learned, found, strict=True))
    return value, weights, change


def call_gram(
    strategy: GramStrategy, state: State, gram: np.ndarray, losses: np.ndarray, present: list[int]
) -> tuple[Weights, Change]:
    """The weights [n], or those of the shared parameters and of the heads, and the change of its state."""
    with full_precision(), state.restoring() as change:
        out = strategy.weights(gram, losses, np.array(present))
    for name, param in state.learned.params.items():
        if param.grad is not None:
            change.gradients[name], param.grad = param.grad, None
    return out, change


def call_jacobian(
    strategy: JacobianStrategy,
    state: State,
    jacobian: Tensor,
    losses: Tensor,
    present: list[int],
    sizes: Mapping[str, int],
) -> tuple[Tensor, Tensor | None, Change]:
    """The direction [P], weights [m] if it has any, and the change of its state.

    ``sizes``: by name the elements of the tensors that the P columns belong to.
    """
    state.rows.give(present, sizes, jacobian)
    with full_precision(), state.restoring() as change:
        out = strategy.direction(jacobian, losses, state.at(present, host=True))
    change.rows = state.rows.take()
    direction, weights = out if isinstance(out, tuple) else (out, None)
    return direction, weights, change
