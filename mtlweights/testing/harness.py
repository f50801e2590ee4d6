"""A strategy at work without a model: losses and gradients are given, state is kept as the Balancer does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..balancer.records import Step
from ..balancer.state.state import State
from ..strategies import ALL, GramStrategy, Index, JacobianStrategy, LossStrategy, Strategy
from .compare import frozen

#: of learned weights
LEARNING_RATE = 0.025


@dataclass
class Moment:
    """What a step shows a strategy: m tasks present, P parameters.

    A strategy with several ``batches`` gets the rows over and over, one with ``lookahead`` those of
    validation losses behind them, which are all 1.
    """

    name: str  #: said in messages
    jacobian: np.ndarray  #: [m, P]
    losses: np.ndarray  #: [m]
    present: Index = field(default_factory=lambda: ALL)  #: the tasks at hand
    validation: np.ndarray | None = None  #: [v, P]

    def __str__(self) -> str:
        every = isinstance(self.present, slice)
        return f"{self.name}, {len(self.losses)} tasks" if every else f"{self.name}, present {self.present}"


@dataclass
class Result:
    """What a strategy made of a moment."""

    update: np.ndarray  #: the trunk's direction [P]
    weights: list[np.ndarray]  #: trunk's and heads' [m], or [km] with k batches; as far as it has any
    raw: list[Any]  #: what it returned


class Stage:
    """Plays steps on a strategy, as the Balancer would.

    Args:
        strategy: Any of the three kinds.
        dtype: Of the losses and of a Jacobian; a Gramian is float64 in any case.
    """

    def __init__(self, strategy: Strategy, dtype: torch.dtype = torch.float64) -> None:
        self.strategy, self.dtype = strategy, dtype
        self.state = State(strategy, LEARNING_RATE)
        self.given: dict[str, tuple[Any, Any]] = {}  #: the last call's inputs, and copies from before it

    def step(self, moment: Moment) -> Result:
        """A step that is taken."""
        result = self.propose(moment)
        self.state.commit()
        return result

    def propose(self, moment: Moment) -> Result:
        """A step that is not taken yet: ``state.commit()`` takes it, ``state.drop()`` skips it.

        Raises AssertionError where the strategy raises or returns another shape, saying for which moment.
        """
        losses = torch.tensor(moment.losses, dtype=self.dtype)
        present = np.arange(self.strategy.n_tasks)[moment.present]
        step = Step(present.tolist(), losses, torch.ones_like(losses))
        try:
            result = self._weigh(moment, step)
        except Exception as error:
            said = (
                str(error) if isinstance(error, AssertionError) else f"raised {type(error).__name__}: {error}"
            )
            raise AssertionError(f"{moment}: {said}") from error
        self.state.propose(step)
        return result

    def snapshot(self) -> dict[str, Tensor]:
        """All state as name -> tensor; what there is per task has a row per task."""
        kept = {
            f"moments.{k}.{i}": x
            for k, pair in self.state.learned.moments.items()
            for i, x in enumerate(pair)
        }
        kept |= {f"rows.{k}": x for k, x in self.state.rows.flat.items()}
        return {k: x.detach().clone() for k, x in {**self.strategy.state_dict(), **kept}.items()}

    def _weigh(self, moment: Moment, step: Step) -> Result:
        strategy = self.strategy
        if isinstance(strategy, LossStrategy):
            return self._combine(strategy, moment, step)
        if isinstance(strategy, GramStrategy):
            return self._weights(strategy, moment, step)
        assert isinstance(strategy, JacobianStrategy)
        return self._direction(strategy, moment, step)

    def _combine(self, strategy: LossStrategy, moment: Moment, step: Step) -> Result:
        learned = dict(strategy.named_parameters())
        point = step.losses.clone().requires_grad_()
        given = self._give(losses=point, present=moment.present)
        with self.state.trial() as step.buffers, torch.enable_grad():
            value = strategy.combine(given["losses"], given["present"])
            _expect("combine", value, ())
            if value.requires_grad:
                found = torch.autograd.grad(value, [point, *learned.values()], materialize_grads=True)
            else:
                raise AssertionError("the scalar that combine returned does not depend on the losses")
        step.gradients = dict(zip(learned, found[1:], strict=True))
        weights = found[0].double().numpy()
        with np.errstate(all="ignore"):
            return Result(weights @ moment.jacobian, [weights], [])

    def _weights(self, strategy: GramStrategy, moment: Moment, step: Step) -> Result:
        extra = moment.jacobian[:0] if moment.validation is None else moment.validation
        stacked = np.tile(moment.jacobian, (strategy.batches, 1))
        rows = np.vstack([stacked, extra])
        losses = np.append(moment.losses, np.ones(len(extra)))
        given = self._give(gram=rows @ rows.T, losses=losses, present=np.array(step.present))
        with self.state.trial() as step.buffers:
            out = strategy.weights(given["gram"], given["losses"], given["present"])
        for name, param in strategy.named_parameters():
            if param.grad is not None:
                step.gradients[name], param.grad = param.grad, None
        raw = list(out) if isinstance(out, tuple) else [out]
        for array in raw:
            _expect("weights", array, (len(stacked),))
        with np.errstate(all="ignore"):  # weights that are not finite are the checks' affair
            update = raw[0] @ stacked
        return Result(update, [array.copy() for array in raw], raw)

    def _direction(self, strategy: JacobianStrategy, moment: Moment, step: Step) -> Result:
        jacobian = torch.tensor(moment.jacobian, dtype=self.dtype)
        first = jacobian.shape[1] // 2
        self.state.rows.lend(step.present, {"first": first, "second": jacobian.shape[1] - first}, jacobian)
        lent = dict(strategy.rows)
        given = self._give(jacobian=jacobian, losses=step.losses.clone(), present=moment.present, **lent)
        with self.state.trial() as step.buffers, torch.no_grad():
            out = strategy.direction(given["jacobian"], given["losses"], given["present"])
        step.rows = self.state.rows.take_back()
        raw = list(out) if isinstance(out, tuple) else [out]
        for tensor, shape in zip(raw, (jacobian.shape[1:], step.losses.shape), strict=False):
            _expect("direction", tensor, tuple(shape))
        update, *weights = [tensor.double().numpy().copy() for tensor in raw]
        return Result(update, weights, raw)

    def _give(self, **inputs: Any) -> dict[str, Any]:
        self.given = {key: (value, frozen(value)) for key, value in inputs.items()}
        return inputs


def _expect(method: str, value: Any, shape: tuple[int, ...]) -> None:
    """AssertionError unless ``value`` is an array or a tensor of that shape."""
    kind = np.ndarray if method == "weights" else Tensor
    found = f"shape {list(value.shape)}" if isinstance(value, kind) else type(value).__name__
    wanted = "an ndarray" if kind is np.ndarray else "a tensor"
    assert isinstance(value, kind) and tuple(value.shape) == shape, (
        f"{method} should return {wanted} of shape {list(shape)}, found {found}"
    )
