"""When an optimizer step has been taken.

A backward only proposes new balancer state; the optimizer step commits it. Three signals, the best one at
hand: a post-hook on the attached optimizer; torch's global optimizer post-hook, if the optimizer holds our
parameters; neither seen, the next call, unless the last gradient still lies untouched (accumulation).
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook


class StepWatch:
    """Calls ``commit(found_inf)`` after each optimizer step that moves the watched parameter.

    A GradScaler does not call an ordinary optimizer on overflow; a fused one it does call, and the step
    itself reads ``optimizer.found_inf`` on the device, as ``commit`` must then.
    """

    def __init__(self, commit: Callable[[Tensor | None], None]) -> None:
        self._commit = weakref.WeakMethod(commit)
        self._probe: Tensor | None = None
        self._mark: tuple[int, weakref.ref[Tensor] | None, int] | None = None
        self._handles: list[Any] = []
        self._attached = False
        self.seen = False  #: an optimizer has been seen to step

    def attach(self, optimizer: torch.optim.Optimizer) -> None:
        """Listen to this optimizer alone."""
        self._release()
        hook = _hook(weakref.ref(self))
        self._handles = [optimizer.register_step_post_hook(hook)]
        self._attached = self.seen = True

    def watch(self, probe: Tensor | None) -> None:
        """Name a parameter that receives a gradient; listen to any optimizer that holds it."""
        self._probe = probe
        if not self._handles:
            handle = register_optimizer_step_post_hook(_hook(weakref.ref(self)))
            self._handles = [handle]
            weakref.finalize(self, handle.remove)

    @property
    def needs_probe(self) -> bool:
        """No probe is known, or the last backward did not reach it."""
        return self._probe is None or (self._mark is not None and self._mark[1] is None)

    def stepped(self, optimizer: torch.optim.Optimizer) -> None:
        """The hook's body."""
        ours = self._attached or any(p is self._probe for g in optimizer.param_groups for p in g["params"])
        commit = self._commit()
        if ours and commit is not None:
            self.seen = True
            commit(getattr(optimizer, "found_inf", None))

    def mark(self) -> None:
        """Remember the gradient that the backward just finished has left."""
        if self._probe is not None:
            gradient = self._probe.grad
            seen = None if gradient is None else weakref.ref(gradient)
            self._mark = (self._probe._version, seen, 0 if gradient is None else gradient._version)

    def window_over(self) -> bool:
        """The gradient of the last backward is gone, or the parameter has moved."""
        if self._mark is None or self._probe is None:
            return True
        version, gradient, gradient_version = self._mark
        if self._probe._version != version:
            return True
        if gradient is None:
            return False
        now = self._probe.grad
        return now is None or now is not gradient() or now._version != gradient_version

    def untouched(self) -> bool:
        """The gradient of the last backward is known, and still lies there as it was left."""
        return self._mark is not None and self._mark[1] is not None and not self.window_over()

    def _release(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def __getstate__(self) -> dict[str, Any]:
        """Hooks belong to this process and this object: a copy listens afresh."""
        raise TypeError("A StepWatch cannot be copied; the Balancer makes a new one.")


def _hook(watch: weakref.ref[StepWatch]) -> Callable[..., None]:
    def hook(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        alive = watch()
        if alive is not None:
            alive.stepped(optimizer)

    return hook
