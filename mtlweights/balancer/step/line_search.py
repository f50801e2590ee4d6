"""One objective for all the calls of a closure within one optimizer step, as L-BFGS and line searches want.

The weights that a strategy gives at the step's first call stay for the others, and the scalar is sum(w l)
over every parameter: its value and its gradient belong together. A LossStrategy whose weights are the
gradient of its own value has that property already, since its state moves once the step is over.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ...gradients import functions
from ...gradients.batch import Batch
from ...gradients.switches import full_precision, no_autocast
from ...strategies import JacobianStrategy, LossStrategy
from ..calls import Losses
from ..records import Step
from ..state.closures import Evaluations
from .engine import Engine

BEND = 1e-4  # relative step, and relative error, of the comparison of a value with its weights


def follows(engine: Engine, call: Evaluations | None) -> bool:
    """Whether the closure that is being called belongs to such a step.

    Raises:
        ValueError: the method has no objective that a line search could follow.
    """
    if call is None or not call.searches:
        return False
    weigher, kind = engine.weigher, type(call.optimizer).__name__
    name = type(weigher.strategy).__name__
    apart = weigher.groups is not None
    if isinstance(weigher.strategy, JacobianStrategy) or engine.window is not None or apart:
        if not call.compares:  # directions only, each as the method gives it
            return False
        what = "a direction" if engine.window is None else "the sum of several backward passes"
        what = "weights of its own to each of groups=" if apart else what
        raise ValueError(
            f"{kind} follows one objective within a step, and {name} gives {what}, which has none: use a "
            "loss-based or Gramian strategy with accumulation='microbatch', or another optimizer."
        )
    if weigher.options.heads == "plain":
        raise ValueError(
            f"{kind} follows one objective within a step, and there is none with heads='plain': leave heads= "
            "out, and within a step every parameter gets its task's weight."
        )
    return True


def scalar(engine: Engine, call: Evaluations, losses: Losses) -> Tensor | None:
    """The scalar [] of one ``call`` of the closure; None where the strategy's own is an objective.

    The engine weighs the losses of the step's first call.
    """

    def first() -> tuple[Callable[[Step], None], Step | None]:
        decided = engine.begin(losses.values)
        with no_autocast(losses.values[0].device):
            return decided, _weigh(engine, losses)

    decided, found = call.keep(engine, first)
    if found is None:
        return None
    if not set(losses.present) <= set(found.present):
        raise ValueError("The calls of one optimizer step's closure should give losses of the same tasks.")
    now = engine.measure.losses(losses.present, losses.values, losses.counts)
    host = torch.as_tensor(found.trunk)
    if call.number == 1:
        _warn_of_negative(type(engine.weigher.strategy).__name__, host)
    whole = host.to(now.losses)
    weights = whole[[found.present.index(i) for i in now.present]]
    tell = partial(_tell, decided if call.number == 1 else None, found, engine.steps.mark)
    return engine.weighted((weights * now.losses).sum(), weights, now, losses, tell)


def _warn_of_negative(name: str, weights: Tensor) -> None:
    """A sum with a negative weight falls without end where that task's loss grows."""
    if bool((weights < 0).any()):
        warnings.warn(
            f"{name} gave a task a negative weight (balancer.weights), so the value a line search follows "
            "may have no minimum, and training may end in NaN: take a strategy whose weights stay positive, "
            "norm_balance or relobralo, or an optimizer without a closure, such as Adam.",
            stacklevel=5,
        )


def _tell(decided: Callable[[Step], None] | None, step: Step, after: Callable[[], None]) -> None:
    if decided is not None:
        decided(step)
    functions.after_backward(after)


def _weigh(engine: Engine, losses: Losses) -> Step | None:
    """The strategy's step at these losses, without its gradient; None for an objective of its own."""
    present, values, counts = losses.present, losses.values, losses.counts
    if isinstance(engine.weigher.strategy, LossStrategy):
        step = engine.measure.losses(present, values, counts)
        engine.weigher.objective(step)
        return None if _is_objective(engine, step) else step
    one = torch.ones((), device=values[0].device)
    leaves, _ = engine.register(present, values)
    found = engine.measure(Batch(present, values, counts, leaves, one, retain_graph=True))
    assert found is not None  # no window is open
    engine.weigher.weigh(found)
    return found.step


def _is_objective(engine: Engine, step: Step) -> bool:
    """The weights are the gradient of the value as it is, nothing in it taken for constant."""
    weigher = engine.weigher
    assert isinstance(weigher.strategy, LossStrategy)
    wide = torch.float32 if step.losses.device.type == "mps" else torch.float64
    losses = step.losses.to(wide)
    towards = losses * torch.linspace(0.5, 1.5, len(losses), dtype=wide, device=losses.device)
    ends = []
    for sign in (-1, 1):
        with full_precision(), weigher.state.restoring(), torch.no_grad():
            point = losses + sign * BEND * towards
            ends.append(float(weigher.strategy.combine(point, weigher.state.at(step.present))))
    parts = (torch.as_tensor(step.trunk).to(losses) * towards).cpu().numpy()
    slope = (ends[1] - ends[0]) / (2 * BEND)
    return bool(np.abs(slope - parts.sum()) <= BEND * np.abs(parts).sum())
