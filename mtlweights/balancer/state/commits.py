"""The two phases of a step: what its backward proposed becomes the state once the optimizer has stepped."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from ...gradients import graph
from ...gradients.shared_parameters import Sharing
from ..records import Step
from .optimizer_steps import StepWatch
from .state import State
from .window import Window

PATIENCE = 50  # steps given up from the start on, after which it is said that nobody tells of any


class Commits:
    """Proposes, and commits when an optimizer step was seen, or must have been.

    Args:
        state: What is proposed and committed.
        window: Of accumulation, or None.
    """

    def __init__(self, state: State, window: Window | None) -> None:
        self.state, self.window = state, window
        self.watch = StepWatch(self._commit)
        self.last: Step | None = None  #: proposed last
        self._lost = 0  # proposals dropped before the first commit

    def begin(self, values: Sequence[Tensor], sharing: Sharing) -> Callable[[Step], None]:
        """Before a backward of the losses ``values``: settle the last step, find a parameter to watch.

        Returns what the backward calls with the step that it has decided on.
        """
        self.settle(wait=True)
        if self.window is not None and self.state.pending is not None and self.watch.untouched():
            self.window.check_stepped()
        if self.watch.needs_probe:
            self.watch.watch(sharing.probe(values))
        return partial(self._propose, partial(_behind, values, sharing))

    def _propose(self, behind: Callable[[], Iterator[Tensor]], step: Step) -> None:
        self.last = step
        self.watch.expect(behind)
        self.state.propose(step)

    def _commit(self, found_inf: Tensor | None) -> None:
        """An optimizer has stepped."""
        if self.window is not None:
            self.window.check_closed()
        self.state.stepped(found_inf)
        self._settled()

    def settle(self, wait: bool = False) -> None:
        """Decide what became of the last proposal, if no hook has told."""
        if self.state.flag is not None:
            if not wait:
                self.state.resolve()
        elif self.state.told:
            self.state.drop()
        elif self.state.pending is not None and self.watch.window_over():
            if self.watch.taken():
                self.state.commit()
            else:
                self._drop()
        self._settled()

    def _settled(self) -> None:
        if self.state.pending is None:
            self.watch.expect(None)

    def _drop(self) -> None:
        self.state.drop()
        self._lost += not self.state.commits
        if self._lost == PATIENCE and not self.state.commits:
            warnings.warn(
                f"No optimizer step was seen after {PATIENCE} backward passes, so the balancer's state has "
                "not moved: give the optimizer whose step() moves the parameters to balancer.attach().",
                stacklevel=5,
            )

    def __getstate__(self) -> dict[str, Any]:
        """A copy listens to optimizers afresh and has no step in flight."""
        return {**self.__dict__, "watch": None, "last": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state.drop()
        self.watch = StepWatch(self._commit)


def _behind(values: Sequence[Tensor], sharing: Sharing) -> Iterator[Tensor]:
    """The parameters behind the losses, as optimizers hold them."""
    if sharing.sharded and sharing.model is not None:
        yield from sharing.model.parameters()
        return
    for node in graph.nodes(values):
        leaf = graph.leaf(node)
        if leaf is not None:  # FSDP1 with use_orig_params: the leaf is flat, made of those in _params
            yield from (part for part in getattr(leaf, "_params", None) or [leaf] if part is not None)
