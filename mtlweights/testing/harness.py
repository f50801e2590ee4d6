"""A strategy at work without a model: losses and gradients are given, state is kept as the Balancer does."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..balancer.records import Step
from ..balancer.state.state import State
from ..balancer.step.weights import call_gram, call_jacobian, call_loss
from ..strategies import ALL, GramStrategy, Index, JacobianStrategy, LossStrategy, Strategy
from .compare import frozen

LEARNING_RATE = 0.025  #: of learned weights
METHODS = {LossStrategy: "combine", GramStrategy: "weights", JacobianStrategy: "direction"}


@dataclass
class Case:
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
    """What a strategy made of a case."""

    update: np.ndarray  #: the trunk's direction [P]
    weights: list[np.ndarray]  #: trunk's and heads' [m], or [km] with k batches; as far as it has any


class Harness:
    """Plays steps on a strategy, as the Balancer would.

    Args:
        strategy: Any of the three kinds.
        dtype: Of the losses and of a Jacobian; a Gramian is float64 in any case.
    """

    def __init__(self, strategy: Strategy, dtype: torch.dtype = torch.float64) -> None:
        self.strategy, self.dtype = strategy, dtype
        self.state = State(strategy, LEARNING_RATE)
        self.given: dict[str, tuple[Any, Any]] = {}  #: the last call's inputs, and copies from before it
        self.m = strategy.n_tasks  #: tasks at hand
        for kind, method in METHODS.items():
            if isinstance(strategy, kind):
                self._watch(method)

    def step(self, case: Case) -> Result:
        """A step that is taken."""
        result = self.propose(case)
        self.state.commit()
        return result

    def propose(self, case: Case) -> Result:
        """A step that is not taken yet: ``state.commit()`` takes it, ``state.drop()`` skips it.

        Raises AssertionError where the strategy raises or returns another shape, saying for which case.
        """
        losses = torch.tensor(case.losses, dtype=self.dtype)
        present = np.arange(self.strategy.n_tasks)[case.present]
        step = Step(present.tolist(), losses, torch.ones_like(losses))
        self.m = len(present)
        try:
            result = self._weigh(case, step)
        except Exception as error:
            said = (
                str(error) if isinstance(error, AssertionError) else f"raised {type(error).__name__}: {error}"
            )
            raise AssertionError(f"{case}: {said}") from error
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

    def _weigh(self, case: Case, step: Step) -> Result:
        match self.strategy:
            case LossStrategy():
                _, found, step.change = call_loss(self.strategy, self.state, step.losses, step.present)
                weights = found.double().numpy()
                with np.errstate(all="ignore"):
                    return Result(weights @ case.jacobian, [weights])
            case GramStrategy():
                return self._by_gramian(self.strategy, case, step)
            case JacobianStrategy():
                return self._by_jacobian(self.strategy, case, step)
        raise AssertionError("a strategy should be a LossStrategy, a GramStrategy or a JacobianStrategy")

    def _by_gramian(self, strategy: GramStrategy, case: Case, step: Step) -> Result:
        stacked = np.tile(case.jacobian, (strategy.batches, 1))
        rows = stacked if case.validation is None else np.vstack([stacked, case.validation])
        losses = np.append(case.losses, np.ones(len(rows) - len(stacked)))
        out, step.change = call_gram(strategy, self.state, rows @ rows.T, losses, step.present)
        weights = out if isinstance(out, tuple) else (out,)
        with np.errstate(all="ignore"):  # weights that are not finite are the checks' affair
            update = weights[0] @ stacked
        return Result(update, [array.copy() for array in weights])

    def _by_jacobian(self, strategy: JacobianStrategy, case: Case, step: Step) -> Result:
        jacobian = torch.tensor(case.jacobian, dtype=self.dtype)
        first = jacobian.shape[1] // 2
        sizes = {"first": first, "second": jacobian.shape[1] - first}
        with torch.no_grad():
            direction, weights, step.change = call_jacobian(
                strategy, self.state, jacobian, step.losses, step.present, sizes
            )
        made = [direction] if weights is None else [direction, weights]
        update, *found = [tensor.double().numpy().copy() for tensor in made]
        return Result(update, found)

    def _watch(self, method: str) -> None:
        """Have a method note what it is given, and check what it returns."""
        call = getattr(self.strategy, method)
        names = list(inspect.signature(call).parameters)

        def watched(*inputs: Any, **named: Any) -> Any:
            given = {**vars(self.strategy).get("rows", {}), **dict(zip(names, inputs, strict=False)), **named}
            self.given = {key: (value, frozen(value)) for key, value in given.items()}
            out = call(*inputs, **named)
            n = self.m * self.strategy.batches
            shapes: dict[str, list[tuple[int, ...]]] = {
                "combine": [()],
                "weights": [(n,), (n,)],
                "direction": [inputs[0].shape[1:], (self.m,)],
            }
            for value, shape in zip(out if isinstance(out, tuple) else (out,), shapes[method], strict=False):
                _expect(method, value, tuple(shape))
            if method == "combine" and not out.requires_grad:
                raise AssertionError("the scalar that combine returned does not depend on the losses")
            return out

        setattr(self.strategy, method, watched)


def _expect(method: str, value: Any, shape: tuple[int, ...]) -> None:
    """AssertionError unless ``value`` is an array or a tensor of that shape."""
    kind = np.ndarray if method == "weights" else Tensor
    found = f"shape {list(value.shape)}" if isinstance(value, kind) else type(value).__name__
    wanted = "an ndarray" if kind is np.ndarray else "a tensor"
    assert isinstance(value, kind) and tuple(value.shape) == shape, (
        f"{method} should return {wanted} of shape {list(shape)}, found {found}"
    )
