"""The two phases of a step: what its backward proposed becomes the state once the optimizer has stepped.

A backward only proposes new balancer state; an optimizer step commits it: that of an attached optimizer, or
of any that holds a parameter behind the losses. Where no torch optimizer tells (plain arithmetic, DeepSpeed),
the next call finds out, from a parameter and the gradient that the last backward left there.
"""

from __future__ import annotations

import gc
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from ...gradients import graph
from ...gradients.shared_parameters import Sharing
from ..records import Step
from . import closures
from .state import State
from .window import Window

_EVERY: weakref.WeakSet[OptimizerSteps] = weakref.WeakSet()
_LISTENING: list[Any] = []
SAMPLE = 4096  # elements of the probe that are compared
PATIENCE = 50  # steps given up from the start on, after which it is said that nobody tells of any


class OptimizerSteps:
    """Sees the steps of the optimizers that move the model, and commits what was proposed before each.

    A GradScaler does not call an ordinary optimizer on overflow; a fused one it does call, and the step
    itself reads ``optimizer.found_inf`` on the device, as the commit then does.

    Args:
        state: What is proposed and committed.
        window: Of accumulation, or None.
    """

    def __init__(self, state: State, window: Window | None) -> None:
        self.state, self.window = state, window
        self._lost = 0  # proposals dropped before the first commit
        self._listen()

    def _listen(self) -> None:
        self.last: Step | None = None  #: proposed last
        self.told = False  #: an optimizer tells of its steps
        self._probe: Tensor | None = None
        self._mark: tuple[int, weakref.ref[Tensor] | None, int] | None = None
        self._sample: Tensor | None = None
        self._alive: str | None = None
        self._attached: weakref.WeakSet[Optimizer] = weakref.WeakSet()
        self._watched: dict[int, weakref.ref[Tensor]] = {}
        self._behind: Callable[[], Iterable[Tensor]] | None = None  # what the open proposal's losses reach
        if not _LISTENING:
            _LISTENING.append(register_optimizer_step_pre_hook(_before_step))
            _LISTENING.append(register_optimizer_step_post_hook(_after_step))
        _EVERY.add(self)

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Listen to these as well, whatever parameters they hold."""
        self._attached.update(optimizers)
        self.told = True

    # the two phases ---------------------------------------------------------------------------------------

    def begin(self, values: Sequence[Tensor], sharing: Sharing) -> Callable[[Step], None]:
        """Before a backward of the losses ``values``: resolve the last step, find a parameter to watch.

        Returns what the backward calls with the step that it has decided on.
        """
        self.resolve(wait=True)
        if self.window is not None and self.state.pending is not None and self._untouched():
            self.window.check_stepped()
        if self._probe is None or (self._mark is not None and self._mark[1] is None):  # none, or not reached
            self._probe = sharing.probe(values)
            self._watch([] if self._probe is None else [self._probe])
        return partial(self._propose, partial(_behind, values, sharing))

    def _propose(self, behind: Callable[[], Iterator[Tensor]], step: Step) -> None:
        self.last, before = step, self._behind
        self._behind = behind if before is None else lambda: [*before(), *behind()]
        self.state.propose(step)

    def stepped(self, optimizer: Optimizer) -> None:
        """An optimizer of this process has stepped: commit, if it is one of this model's."""
        if not self._ours(optimizer):
            return
        self.told, self._sample = True, None
        if self.window is not None:
            self.window.check_closed()
        self.state.stepped(getattr(optimizer, "found_inf", None))
        self._close()

    def resolve(self, wait: bool = False) -> None:
        """Decide what became of the last proposal, if no hook has told; ``wait``: a flag may wait on."""
        if self.state.flag is not None:
            if not wait:
                self.state.resolve()
        elif self.state.told:
            self.state.drop()
        elif self.state.pending is not None and self._window_over():
            if self._taken():
                self.state.commit()
            else:
                self._drop()
        self._close()

    def _close(self) -> None:
        if self.state.pending is None:
            self._behind = None

    def _drop(self) -> None:
        self.state.drop()
        self._lost += not self.state.commits
        if self._lost == PATIENCE and not self.state.commits:
            warnings.warn(
                f"No optimizer step was seen after {PATIENCE} backward passes, so the balancer's state has "
                "not moved: give the optimizer whose step() moves the parameters to balancer.attach().",
                stacklevel=5,
            )

    def forget(self) -> None:
        """The parameter that was watched may be frozen now: the next backward finds another."""
        self._probe = self._mark = self._sample = None

    # whose step it is -------------------------------------------------------------------------------------

    def _ours(self, optimizer: Optimizer) -> bool:
        if optimizer in self._attached or self._holds(optimizer):
            return True
        behind, self._behind = self._behind, None
        if behind is None:
            return False
        self._watch(behind())  # walks the graph, for an optimizer not met before
        return self._holds(optimizer)

    def _watch(self, params: Iterable[Tensor]) -> None:
        self._watched |= {id(p): weakref.ref(p) for p in params}

    def _holds(self, optimizer: Optimizer) -> bool:
        params = (p for group in optimizer.param_groups for p in group["params"])
        return any((ref := self._watched.get(id(p))) is not None and ref() is p for p in params)

    # where no hook tells ----------------------------------------------------------------------------------

    def mark(self) -> None:
        """Remember the gradient that the backward just finished has left in the probe."""
        if self._probe is not None:
            gradient = self._probe.grad
            left = None if gradient is None else weakref.ref(gradient)
            self._mark = (self._probe._version, left, 0 if gradient is None else gradient._version)
            if not self.told and type(self._probe.data) is Tensor:
                self._sample = _first(self._probe)

    def _window_over(self) -> bool:
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

    def _untouched(self) -> bool:
        """The gradient of the last backward is known, and still lies there as it was left."""
        return self._mark is not None and self._mark[1] is not None and not self._window_over()

    def _taken(self) -> bool:
        """The window is over and nobody told of a step: whether one was taken all the same.

        torch's optimizers move parameters in ``step`` alone, which tells; those of others may do so elsewhere
        (SAM's first half), and inside a step that calls its closure nothing is final.
        """
        if self.told or closures.NOW.step is not None:
            return False
        if self._alive is None:
            self._alive = self._holders()
        probe, mark, sample = self._probe, self._mark, self._sample
        if self._alive == "torch" and probe is not None and mark is not None and sample is not None:
            return probe._version != mark[0] or not torch.equal(_first(probe), sample)
        return self._alive != "other"

    def _holders(self) -> str:
        """Of the optimizers alive that hold a watched parameter: "other" if one is not torch's own."""
        alive = [o for o in gc.get_objects() if issubclass(type(o), Optimizer)]
        kinds = {type(o).__module__.startswith("torch.optim") for o in alive if self._holds(o)}
        return "none" if not kinds else "torch" if all(kinds) else "other"

    def __getstate__(self) -> dict[str, Any]:
        """A copy listens to optimizers afresh and has no step in flight."""
        return {"state": self.state, "window": self.window, "_lost": self._lost}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.state.drop()
        self._listen()


def _before_step(optimizer: Optimizer, args: Any, kwargs: Any) -> Any:
    """torch's hook: the arguments of the step, self first, with a closure noted."""
    if callable(kwargs.get("closure")):
        return args, {**kwargs, "closure": closures.Evaluations(optimizer, kwargs["closure"])}
    if len(args) > 1 and callable(args[1]):
        return (args[0], closures.Evaluations(optimizer, args[1]), *args[2:]), kwargs
    return None


def _after_step(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
    for steps in list(_EVERY):
        steps.stepped(optimizer)


def _first(probe: Tensor) -> Tensor:
    return probe.detach().reshape(-1)[:SAMPLE].clone()


def _behind(values: Sequence[Tensor], sharing: Sharing) -> Iterator[Tensor]:
    """The parameters behind the losses, as optimizers hold them."""
    if sharing.sharded and sharing.model is not None:
        yield from sharing.model.parameters()
        return
    for node in graph.nodes(values):
        leaf = graph.leaf(node)
        if leaf is not None:  # FSDP1 with use_orig_params: the leaf is flat, made of those in _params
            yield from (part for part in getattr(leaf, "_params", None) or [leaf] if part is not None)
