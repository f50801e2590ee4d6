"""Which ``optimizer.step(closure)`` is running, and how often it has called its closure.

torch's global pre-hook may replace the arguments of a step: every closure is handed on inside an object that
knows while it runs, so nothing is left behind when it raises.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer


class _Now(threading.local):
    step: Evaluations | None = None


NOW = _Now()  #: ``.step``: the optimizer step whose closure is being called now, in this thread


class Evaluations:
    """The calls of a closure within one optimizer step.

    Args:
        optimizer: Whose step it is.
        closure: What the caller passed to it.
    """

    def __init__(self, optimizer: Optimizer, closure: Callable[..., Any]) -> None:
        self.optimizer, self.closure = optimizer, closure
        self.number = 0  #: of the call now running, from 1
        self._kept: dict[tuple[int, int], Any] = {}
        self._asked: dict[int, int] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the closure; ``NOW.step`` is this object meanwhile."""
        self.number += 1
        self._asked = {}
        before, NOW.step = NOW.step, self
        try:
            return self.closure(*args, **kwargs)
        finally:
            NOW.step = before

    def keep(self, owner: object, make: Callable[[], Any]) -> Any:
        """What ``make`` gave at the same place of the step's first call: the k-th time ``owner`` asks."""
        place = (id(owner), self._asked.get(id(owner), 0))
        self._asked[id(owner)] = place[1] + 1
        if place not in self._kept:
            self._kept[place] = make()
        return self._kept[place]

    @property
    def searches(self) -> bool:
        """The step follows one objective over several calls, as L-BFGS does: it must have a closure."""
        if "bfgs" in type(self.optimizer).__name__.lower():
            return True
        closure = inspect.signature(type(self.optimizer).step).parameters.get("closure")
        return closure is not None and closure.default is inspect.Parameter.empty

    @property
    def compares(self) -> bool:
        """The step compares values of the objective (a line search), or may."""
        return self.optimizer.param_groups[0].get("line_search_fn", "unknown") is not None
