"""The two phases of a step: what its backward proposed becomes the state once the optimizer has stepped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from .sharing import Sharing
from .state import State
from .step import Step
from .stepping import StepWatch
from .weighing import Weigher
from .window import Window


class Commits:
    """Proposes, and commits when an optimizer step was seen, or must have been.

    Args:
        state: What is proposed and committed.
        weigher: Keeps the flag of a fused optimizer that is still on the device.
        window: Of accumulation, or None.
    """

    def __init__(self, state: State, weigher: Weigher, window: Window | None) -> None:
        self.state, self.weigher, self.window = state, weigher, window
        self.watch = StepWatch(self._commit)
        self.last: Step | None = None  #: proposed last

    def begin(self, values: Sequence[Tensor], sharing: Sharing) -> None:
        """Before a backward of the losses ``values``: settle the last step, find a parameter to watch."""
        self.settle(wait=self.weigher.late_flag is not None)
        if self.window is not None and self.state.pending is not None and self.watch.untouched():
            self.window.check_stepped()
        if self.watch.needs_probe:
            self.watch.watch(sharing.probe(values))

    def propose(self, step: Step) -> None:
        """A backward has decided."""
        self.last = step
        self.state.propose(step)

    def _commit(self, found_inf: Tensor | None) -> None:
        """The optimizer has stepped. A flag on another device waits for the next copy to the host."""
        if self.window is not None:
            self.window.check_closed()
        if found_inf is not None and found_inf.device != self.state.device:
            self.weigher.late_flag = found_inf.detach().clone()
        else:
            self.state.commit(found_inf)

    def settle(self, wait: bool = False) -> None:
        """Decide what became of the last proposal, if no hook has told."""
        if self.weigher.late_flag is not None:
            if not wait:
                flag, self.weigher.late_flag = self.weigher.late_flag, None
                self.state.commit(flag)
        elif self.state.pending is not None and self.watch.window_over():
            if self.watch.seen:
                self.state.drop()
            else:
                self.state.commit()

    def __getstate__(self) -> dict[str, Any]:
        """A copy listens to optimizers afresh and has no step in flight."""
        return {**self.__dict__, "watch": None, "last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state.drop()
        self.watch = StepWatch(self._commit)
