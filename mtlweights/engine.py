"""One training step: from losses to weights to ``.grad``.

Two ways. A LossStrategy returns a scalar whose backward is the user's own, once, each loss weighted
(:meth:`Engine.scalar`). Everything else works on per-task rows and writes ``.grad`` (:meth:`Engine.write`).
Letters: m tasks present on any rank, n trainable parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import distributed, gradients
from .gradients import Row, Weight
from .sharing import Sharing
from .state import State
from .step import Step
from .strategies import GramStrategy, JacobianStrategy, LossStrategy, Strategy


@dataclass
class Engine:
    """A strategy, its state and the shared set at work. ``heads``: "plain", "weighted" or "paper"."""

    strategy: Strategy
    state: State
    sharing: Sharing
    heads: str
    every: int
    smoothing: float
    late_flag: Tensor | None = None  #: found_inf of a fused optimizer, to be read with the next host copy
    validation: tuple[list[Row], Tensor] | None = None

    @property
    def plain_heads(self) -> bool:
        """Parameters of one task get its unweighted gradient."""
        return (self.strategy.heads if self.heads == "paper" else self.heads) == "plain"

    def scalar(
        self, present: list[int], values: list[Tensor], counts: list[Any], done: Callable[[Step], None]
    ) -> Tensor:
        """The objective [] of a LossStrategy; ``done(step)`` is called when its backward starts."""
        step, value = self._combine(self._step(present, values, counts))
        mine = step.trunk
        if distributed.ranks() > 1:
            here = [step.present.index(i) for i in present]
            mine = step.trunk[here] * torch.stack(self._shares(step, present, counts)) * distributed.ranks()
        scalar: Tensor = gradients.Weighted.apply(  # type: ignore[no-untyped-call]
            value, mine, partial(done, step), *values
        )
        return scalar

    def write(
        self, present: list[int], values: list[Tensor], counts: list[Any], factor: Tensor, retain_graph: bool
    ) -> Step:
        """Compute the weights and add the step's gradient, times ``factor``, to every ``.grad``."""
        new = self.sharing.meet(present, values)
        columns = self.sharing.trainable()
        params = [self.sharing.params[c] for c in columns]
        if not self._rows_due(present):
            return self._one_pass(present, values, counts, columns, factor, retain_graph)
        rows = gradients.rows(values, params, factor, retain_graph=retain_graph)
        if distributed.ranks() > 1:
            everywhere = distributed.mean_rows(rows, values, present, counts, params, self.strategy.n_tasks)
            present, rows = everywhere[:2]
            step = Step(present, *everywhere[2:])
        else:
            step = self._step(present, values, counts)
        self.sharing.update(present, rows, columns, new)
        pieces: dict[int, Tensor] = {}
        if isinstance(self.strategy, LossStrategy):
            step, _ = self._combine(step)
        else:
            measured = self.sharing.measured(self.strategy.measured_at, present)
            at = [columns.index(c) for c in measured]
            if isinstance(self.strategy, JacobianStrategy):
                pieces = self._direct(self.strategy, step, rows, at, params, factor)
            else:
                self._solve(step, rows, at, factor)
        shared = self.sharing.reach[:, columns].sum(0) >= 2
        for k, param in enumerate(params):
            weights = step.trunk if shared[k] else step.heads
            gradient = pieces[k] if k in pieces else gradients.combine(rows, k, _items(weights, len(rows)))
            gradients.accumulate(param, gradient)
        return step

    def after_step(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Give the strategy the losses after the optimizer step, averaged over the ranks."""
        step = self._step(present, values, counts)
        self.strategy.after_step(step.losses, self._index(step))
        return step

    # the strategy's part ----------------------------------------------------------------------------------

    def _step(self, present: list[int], values: list[Tensor], counts: list[Any]) -> Step:
        """Losses and counts, averaged over the ranks."""
        if distributed.ranks() > 1:
            return Step(*distributed.mean_losses(values, present, counts, self.strategy.n_tasks))
        losses = torch.stack([v.detach().to(values[0].device) for v in values])
        losses = losses.to(torch.promote_types(losses.dtype, torch.float32))
        return Step(present, losses, torch.stack([torch.as_tensor(c, device=losses.device) for c in counts]))

    def _index(self, step: Step) -> np.ndarray | None:
        return None if len(step.present) == self.strategy.n_tasks else np.array(step.present)

    def _combine(self, step: Step) -> tuple[Step, Tensor]:
        """Run a LossStrategy: objective [], weights, gradients of its learned parameters."""
        assert isinstance(self.strategy, LossStrategy)
        objective = partial(self.strategy.combine, present=self._index(step))
        with self.state.trial() as step.buffers:
            value, weights, learned = gradients.differentiate(
                objective, step.losses, list(self.state.learned.values())
            )
        step.ok = torch.isfinite(step.losses).all() & torch.isfinite(weights).all()
        step.trunk = torch.where(step.ok, weights, torch.nan)
        step.heads = (
            torch.where(step.ok, torch.ones_like(weights), torch.nan) if self.plain_heads else step.trunk
        )
        step.gradients = dict(zip(self.state.learned, learned, strict=True))
        return step, value

    def _solve(self, step: Step, rows: list[Row], at: list[int], factor: Tensor) -> None:
        """Run a GramStrategy on the host, after the step's one copy to it."""
        assert isinstance(self.strategy, GramStrategy)
        m, (extra, extra_losses) = len(rows), self.validation or ([], step.losses[:0])
        self.validation = None
        gram = gradients.gramian([*rows, *extra], at)
        k = m + len(extra)
        host = self._host(gram.flatten(), step.losses, extra_losses, factor)
        scale = np.where(np.arange(k) < m, host[-1], 1.0)
        with np.errstate(all="ignore"):
            full = host[: k * k].reshape(k, k) / np.outer(scale, scale)
        step.gram, losses = full[:m, :m], host[k * k : -1]
        if not (np.isfinite(full).all() and np.isfinite(losses).all()):
            return step.spoil()
        with self.state.trial() as step.buffers:
            out = self.strategy.weights(full, losses, self._index(step))
        for name, param in self.state.learned.items():
            if param.grad is not None:
                step.gradients[name], param.grad = param.grad, None
        trunk, heads = out if isinstance(out, tuple) else (out, None)
        if heads is None or self.heads != "paper":
            heads = np.ones(m) if self.plain_heads else trunk
        self._keep(step, np.stack([trunk, heads]))

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

    def _direct(
        self, strategy: JacobianStrategy, step: Step, rows: list[Row], at: list[int], params: list[Tensor],
        factor: Tensor,
    ) -> dict[int, Tensor]:  # fmt: skip
        """Run a JacobianStrategy: the scaled direction, cut into parameters."""
        matrix = gradients.jacobian(rows, at, params) / factor
        if not bool(torch.isfinite(matrix).all() & torch.isfinite(step.losses).all()):
            step.spoil()
            step.ok = torch.zeros((), dtype=torch.bool, device=matrix.device)
            return {}
        with self.state.trial() as step.buffers:
            out = strategy.direction(matrix, step.losses, self._index(step))
        direction, weights = out if isinstance(out, tuple) else (out, None)
        step.trunk = weights
        step.heads = None if self.plain_heads else weights
        step.ok = torch.isfinite(direction).all()
        return gradients.unflatten(direction * factor, at, params)

    # without rows -----------------------------------------------------------------------------------------

    def _rows_due(self, present: list[int]) -> bool:
        """Rows are needed now: always, but for held weights and for a LossStrategy with plain heads.

        All ranks must decide alike, so under DDP this reads only what all ranks have in common.
        """
        tasks = present if distributed.ranks() == 1 else list(range(self.strategy.n_tasks))
        if not self.sharing.reach[tasks].any(1).all():
            return True
        if isinstance(self.strategy, LossStrategy):
            return False
        held = self.every > 1 and not bool(self.state.held[:, tasks].isnan().any())
        return not held or int(self.strategy.step) % self.every == 0

    def _one_pass(
        self, present: list[int], values: list[Tensor], counts: list[Any], columns: list[int], factor: Tensor,
        retain_graph: bool,
    ) -> Step:  # fmt: skip
        """Weights known without rows: one weighted pass for the trunk, and one into each plain head."""
        step = self._step(present, values, counts)
        if isinstance(self.strategy, LossStrategy):
            step, _ = self._combine(step)
        else:
            host = self._host(step.losses, factor)
            step.trunk, step.heads = self.state.held[:, step.present].numpy()
            if not np.isfinite(host).all():
                step.spoil()
        params = [self.sharing.params[c] for c in columns]
        reach = self.sharing.reach[:, columns]
        shares = self._shares(step, present, counts) if distributed.ranks() > 1 else [1.0] * len(present)
        found: Row = [None] * len(params)
        heads, trunk = _items(step.heads, len(step.present)), _items(step.trunk, len(step.present))
        for i, value, share in zip(present, values, shares, strict=True):
            own = [k for k in range(len(params)) if reach[i, k] and reach[:, k].sum() == 1]
            weight = heads[step.present.index(i)] * share
            part = gradients.weighted_pass(
                [value], [weight], [params[k] for k in own], factor, retain_graph=True
            )
            for k, gradient in zip(own, part, strict=True):
                found[k] = gradient
        common = [k for k in range(len(params)) if reach[:, k].sum() >= 2]
        weights = [trunk[step.present.index(i)] * s for i, s in zip(present, shares, strict=True)]
        part = gradients.weighted_pass(
            values, weights, [params[k] for k in common], factor, retain_graph=retain_graph
        )
        for k, gradient in zip(common, part, strict=True):
            found[k] = gradient
        if distributed.ranks() > 1:
            distributed.total(found, params, reach.any(0).tolist())
        for param, gradient in zip(params, found, strict=True):
            gradients.accumulate(param, gradient)
        return step

    def _shares(self, step: Step, present: list[int], counts: list[Any]) -> list[Tensor]:
        """This rank's part in each of its own tasks: its count over that of all ranks."""
        totals = [step.counts[step.present.index(i)] for i in present]
        return [torch.as_tensor(c).to(total) / total for c, total in zip(counts, totals, strict=True)]

    def _host(self, *parts: Tensor) -> np.ndarray:
        """The step's one copy to the host: the given tensors end to end, float64."""
        flag = [] if self.late_flag is None else [self.late_flag]
        packed = torch.cat([p.to(parts[0]).reshape(-1) for p in [*flag, *parts]]).cpu().double()
        if flag:
            self.late_flag = None
            self.state.commit(packed[0])
        return np.asarray(packed[len(flag) :].numpy())


def _items(weights: Tensor | np.ndarray | None, m: int) -> Sequence[Weight]:
    """One weight per task: floats, or 0-dim tensors left on their device; None is all ones."""
    if weights is None:
        return [1.0] * m
    return weights.unbind() if isinstance(weights, Tensor) else weights.tolist()
