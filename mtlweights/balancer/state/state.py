"""The balancer's state: proposed by a backward, committed by the optimizer step.

Everything here stays on the device of the strategy. A commit writes ``where(ok, new, old)``, so a step
that a fused optimizer skipped on the device is skipped here too, without a host read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...strategies import ALL, Index, Strategy
from ..records import Change, Step
from .learned_weights import Learned
from .row_state import RowStore


class State:
    """A strategy's buffers, its learned parameters with their Adam, and the epoch's mean losses.

    Args:
        strategy: The strategy whose state this is; with parameter groups all of theirs as one.
        lr: Learning rate of its learned parameters: Adam, constant rate, no weight decay.
        groups: How many parameter groups have weights of their own; None: the weights are for all.
    """

    def __init__(self, strategy: Strategy, lr: float, groups: int | None = None) -> None:
        self.strategy = strategy
        n = strategy.n_tasks
        self.learned = Learned(strategy, lr)
        self.sums = torch.zeros(2, n, dtype=torch.float64)
        self.epochs = "end_epoch" in strategy.hooks()  #: sums of losses are kept
        shape = (2, n) if groups is None else (groups, 2, n)
        self.held = torch.full(shape, float("nan"), dtype=torch.float64)
        self.rows = RowStore(strategy)
        self.pending: Change | None = None
        self.flag: Tensor | None = None  #: found_inf of the last optimizer step, still on its device
        self.told = False  #: an optimizer with a flag has answered for the proposal; another one may yet
        self.commits = 0  #: that were made here, as far as the host knows

    def to(self, device: torch.device) -> None:
        """Move everything to the device the losses are on."""
        if self.strategy.step.device == device:
            return
        self.strategy.to(device)
        wide = torch.float32 if device.type == "mps" else torch.float64
        self.learned.to(device)
        self.sums, self.held = self.sums.to(device, wide), self.held.to(device, wide)

    @contextmanager
    def restoring(self) -> Iterator[Change]:
        """Let the strategy change its buffers, or assign others; then put them back.

        It is given copies. What they became is in the change that it yields, once the block is left.
        """
        change, buffers = Change(), self._buffers()
        given = {name: buffer.clone() for name, buffer in buffers.items()}
        self._place(given)
        try:
            yield change
            found = self._buffers()
            change.buffers = {k: b if b is given.get(k) else b.clone() for k, b in found.items()}
        finally:
            self._place(buffers)

    def _place(self, buffers: dict[str, Tensor]) -> None:
        for name, buffer in buffers.items():
            owner, _, leaf = name.rpartition(".")
            self.strategy.get_submodule(owner)._buffers[leaf] = buffer

    def _buffers(self) -> dict[str, Tensor]:
        """The strategy's own tensors; a walk over submodules only where there are any."""
        strategy = self.strategy
        every = strategy.named_buffers() if strategy._modules else strategy._buffers.items()
        return {name: buffer for name, buffer in every if buffer is not None and name != "step"}

    @property
    def device(self) -> torch.device:
        """Where the state lives: the host for a GramStrategy, the losses' device for the others."""
        return self.strategy.step.device

    def at(self, present: list[int], host: bool = False) -> Index:
        """These tasks as an index of tensors here, or of any on the ``host``; a GPU is not waited for."""
        if len(present) == self.strategy.n_tasks:
            return ALL
        if host or self.device.type == "cpu":
            return np.array(present)
        return torch.tensor(present).to(self.device, non_blocking=True)

    @torch.no_grad()
    def propose(self, step: Step) -> None:
        """Add one backward to the step being prepared.

        Several backwards before a commit are one step: learned parameters get the mean of their gradients,
        buffers what the last backward made of the committed state.
        """
        if self.told:
            self.drop()
        change = step.change
        change.ok, change.present = change.ok.to(self.device), step.present
        change.seen = np.zeros(self.strategy.n_tasks, dtype=np.int64)
        change.seen[step.present] = 1
        if self.epochs:
            counts = step.items().to(self.sums)
            change.sums = torch.zeros_like(self.sums)
            change.sums[:, self.at(step.present)] = torch.stack([step.losses.to(self.sums) * counts, counts])
        self._join(change)

    def _join(self, later: Change) -> None:
        """One more backward of the same step: gradients and sums add up, the rest is the last one's."""
        now = self.pending
        if now is None:
            now = self.pending = Change(ok=later.ok)
        else:
            now.ok = now.ok & later.ok
        now.seen = now.seen + later.seen
        if later.sums is not None:
            now.sums = later.sums if now.sums is None else now.sums + later.sums
        for name, gradient in later.gradients.items():
            before = now.gradients.get(name)
            now.gradients[name] = gradient if before is None else before + gradient
        now.buffers.update(later.buffers)
        now.held = now.held if later.held is None else later.held
        now.rows, now.present = later.rows, later.present

    @torch.no_grad()
    def commit(self, found_inf: Tensor | None = None) -> None:
        """Make the proposal the state, unless a value was not finite or the step was skipped.

        With a flag it stays, for the flag of a second optimizer: it is committed by the first step taken.
        """
        if self.pending is None:
            return
        now, ok = self.pending, self.pending.ok
        if found_inf is None:
            self.drop()
        else:
            ok = ok & (found_inf.to(ok.device).reshape(()) == 0)
            now.ok, self.told = now.ok & ~ok, True
        self.commits += 1
        self.strategy.step.add_(ok)
        if now.sums is not None:
            self.sums = torch.where(ok, self.sums + now.sums, self.sums)
        buffers = self._buffers()
        for name, value in now.buffers.items():
            buffers[name].copy_(torch.where(ok, value, buffers[name]))
        if now.held is not None:
            self.held = torch.where(ok, now.held, self.held)
        if now.rows:
            self.rows.write(now.rows, now.present, ok)
        if now.gradients:
            self.learned.update(now.gradients, now.seen, ok)

    def stepped(self, found_inf: Tensor | None) -> None:
        """An optimizer has stepped. A flag on another device waits for the next copy to the host."""
        if found_inf is None or found_inf.device == self.device:
            return self.commit(found_inf)
        found_inf = found_inf.detach()
        # of two optimizers' flags the one of a step that was taken, if either was
        self.flag = (
            found_inf.clone() if self.flag is None else self.flag.minimum(found_inf.to(self.flag.device))
        )

    def resolve(self) -> None:
        """Read the flag that waits, and decide the step by it."""
        if self.flag is not None:
            flag, self.flag = self.flag, None
            self.commit(flag)
            self.drop()

    def host(self, *parts: Tensor) -> np.ndarray:
        """The step's one copy to the host: the given tensors end to end, float64.

        A flag that waits rides along, and decides the last step before anything of this one is read.
        Float64 on the way too: a square of float32 is out of float32's range from 2e19 on.
        """
        flag = [] if self.flag is None else [self.flag]
        device = parts[0].device
        wide = torch.float32 if device.type == "mps" else torch.float64
        packed = torch.cat([p.to(device).to(wide).reshape(-1) for p in [*flag, *parts]]).cpu().double()
        if flag:
            self.flag = None
            self.commit(packed[0])
        return np.asarray(packed[len(flag) :].numpy())

    def drop(self) -> None:
        """Forget the proposal: its step was skipped, or is done."""
        self.pending, self.told = None, False

    @torch.no_grad()
    def learn(self, step: Step) -> None:
        """Update the learned parameters, between two steps, by what the strategy left in ``.grad``."""
        params = self.learned.params
        sums = {k: torch.zeros_like(p) if p.grad is None else p.grad for k, p in params.items()}
        for param in params.values():
            param.grad = None
        seen = np.zeros(self.strategy.n_tasks, dtype=np.int64)
        seen[step.present] = 1
        self.learned.update(sums, seen, torch.isfinite(step.losses).all().to(self.device))

    def mean_losses(self) -> np.ndarray:
        """The mean loss of each task since the last call [T], NaN for a task not seen; starts anew."""
        sums = self.sums.cpu().double().numpy().copy()
        self.sums = torch.zeros_like(self.sums)
        with np.errstate(invalid="ignore"):
            return np.asarray(np.where(sums[1] > 0, sums[0] / np.where(sums[1] > 0, sums[1], 1), np.nan))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers only, so that ``torch.load(weights_only=True)`` reads it."""
        return {
            "strategy": {k: v.clone() for k, v in self.strategy.state_dict().items()},
            "moments": {k: [x.clone() for x in pair] for k, pair in self.learned.moments.items()},
            "updates": self.learned.updates.clone(),
            "sums": self.sums.clone(),
            "held": self.held.clone(),
            "rows": self.rows.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave; an unfinished proposal is dropped."""
        self.drop()
        self.strategy.load_state_dict(state["strategy"])
        self.rows.load_state_dict(state["rows"])
        for name, pair in self.learned.moments.items():
            for mine, theirs in zip(pair, state["moments"][name], strict=True):
                mine.copy_(theirs)
        self.learned.updates.copy_(state["updates"])
        self.sums.copy_(state["sums"])
        self.held.copy_(state["held"])
