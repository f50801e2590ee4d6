"""When an optimizer step has been taken.

A backward only proposes new balancer state; an optimizer step commits it: that of an attached optimizer, or
of any that holds a parameter behind the losses. Where no torch optimizer tells (plain arithmetic, DeepSpeed),
the next call finds out, from a parameter and the gradient that the last backward left there.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from . import closures

_WATCHES: weakref.WeakSet[StepWatch] = weakref.WeakSet()
_LISTENING: list[Any] = []
SAMPLE = 4096  # elements of the probe that are compared


class StepWatch:
    """Calls ``commit(found_inf)`` after each optimizer step that moves a watched parameter.

    A GradScaler does not call an ordinary optimizer on overflow; a fused one it does call, and the step
    itself reads ``optimizer.found_inf`` on the device, as ``commit`` must then.
    """

    def __init__(self, commit: Callable[[Tensor | None], None]) -> None:
        self._commit = weakref.WeakMethod(commit)
        self._probe: Tensor | None = None
        self._mark: tuple[int, weakref.ref[Tensor] | None, int] | None = None
        self._sample: Tensor | None = None
        self._alive: str | None = None
        self._attached: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._watched: dict[int, weakref.ref[Tensor]] = {}
        self._behind: Callable[[], Iterable[Tensor]] | None = None
        self.seen = False  #: an optimizer tells of its steps
        closures.listen()
        if not _LISTENING:
            _LISTENING.append(register_optimizer_step_post_hook(_stepped))
        _WATCHES.add(self)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Listen to these as well, whatever parameters they hold."""
        self._attached.update(optimizers)
        self.seen = True

    def watch(self, probe: Tensor | None) -> None:
        """Name a parameter that receives a gradient."""
        self._probe = probe
        self._add([] if probe is None else [probe])

    def expect(self, behind: Callable[[], Iterable[Tensor]] | None) -> None:
        """A backward has begun: ``behind()`` finds the parameters that it reaches. None: no longer."""
        before = self._behind
        if before is None or behind is None:
            self._behind = behind
        else:
            self._behind = lambda: [*before(), *behind()]

    @property
    def needs_probe(self) -> bool:
        """No probe is known, or the last backward did not reach it."""
        return self._probe is None or (self._mark is not None and self._mark[1] is None)

    def stepped(self, optimizer: Optimizer) -> None:
        """An optimizer of this process has stepped."""
        commit = self._commit()
        if commit is not None and self._ours(optimizer):
            self.seen, self._sample = True, None
            commit(getattr(optimizer, "found_inf", None))

    def _ours(self, optimizer: Optimizer) -> bool:
        if optimizer in self._attached or self._holds(optimizer):
            return True
        behind, self._behind = self._behind, None
        if behind is None:
            return False
        self._add(behind())  # walks the graph, for an optimizer not met before
        return self._holds(optimizer)

    def _add(self, params: Iterable[Tensor]) -> None:
        self._watched |= {id(p): weakref.ref(p) for p in params}

    def _holds(self, optimizer: Optimizer) -> bool:
        params = (p for group in optimizer.param_groups for p in group["params"])
        return any((ref := self._watched.get(id(p))) is not None and ref() is p for p in params)

    def mark(self) -> None:
        """Remember the gradient that the backward just finished has left."""
        if self._probe is not None:
            gradient = self._probe.grad
            left = None if gradient is None else weakref.ref(gradient)
            self._mark = (self._probe._version, left, 0 if gradient is None else gradient._version)
            if not self.seen and type(self._probe.data) is Tensor:
                self._sample = self._first()

    def _first(self) -> Tensor:
        assert self._probe is not None
        return self._probe.detach().reshape(-1)[:SAMPLE].clone()

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

    def taken(self) -> bool:
        """The window is over and nobody told of a step: whether one was taken all the same.

        torch's optimizers move parameters in ``step`` alone, which tells; those of others may do so elsewhere
        (SAM's first half), and inside a step that calls its closure nothing is final.
        """
        if self.seen or closures.running() is not None:
            return False
        if self._alive is None:
            self._alive = self._holders()
        if self._alive == "torch" and self._mark is not None and self._sample is not None:
            assert self._probe is not None
            return self._probe._version != self._mark[0] or not torch.equal(self._first(), self._sample)
        return self._alive != "other"

    def _holders(self) -> str:
        """Of the optimizers alive that hold a watched parameter: "other" if one is not torch's own."""
        alive = [o for o in gc.get_objects() if issubclass(type(o), Optimizer)]
        kinds = {type(o).__module__.startswith("torch.optim") for o in alive if self._holds(o)}
        return "none" if not kinds else "torch" if all(kinds) else "other"

    def __getstate__(self) -> dict[str, Any]:
        """What is watched belongs to this process and this object: a copy watches afresh."""
        raise TypeError("A StepWatch cannot be copied; the Balancer makes a new one.")


def _stepped(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for watch in list(_WATCHES):
        watch.stepped(optimizer)
