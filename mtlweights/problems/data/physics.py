"""Physics-informed networks: a task a loss term of a differential equation, and no label anywhere.

Trained on are squared residuals, objectives of the network's first and second derivatives. Dev and test hold
a reference solution, and every task's score is the error of the network, the one solution of all terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..models import Encoder, MultiTaskModel, Output, States
from ..problem import Example, Problem
from ..task import Task
from .equations import Burgers, Equation, Helmholtz
from .from_examples import take
from .labels import SPLIT_SEED

OPTIONS: dict[str, Any] = {"hidden": 50, "layers": 4, "points": 10_000}
N_DEV, GRID = 2_000, (256, 100)  #: points drawn for dev; and the test's, on a grid
_SETTINGS = {"epochs": 100, "batch_size": 500, "lr": 2e-3, "weight_decay": 0.0, "schedule": "cosine"}
_SETTINGS |= {"warmup": 0.0, "clip": None}


class Field(Encoder):
    """The solution as tanh layers. Input: ``points`` [B, 2]; ``pooled`` [B, 1] is the solution there."""

    pooled_dim = 1

    def __init__(self, hidden: int, layers: int) -> None:
        super().__init__()
        widths = [2, *[hidden] * layers]
        parts: list[nn.Module] = []
        for width, following in pairwise(widths):
            parts += [nn.Linear(width, following), nn.Tanh()]
        self.layers = nn.Sequential(*parts, nn.Linear(hidden, 1))
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.xavier_normal_(layer.weight)
                nn.init.zeros_(layer.bias)

    def at(self, points: Tensor) -> Tensor:
        """The solution [B] at points [B, 2]."""
        found: Tensor = self.layers(points)
        return found.squeeze(-1)

    def forward(self, inputs: dict[str, Any]) -> States:
        """The solution at the points, as the state of each."""
        return States(None, None, self.at(inputs["points"]).unsqueeze(-1))


class Solution(nn.Module):
    """A head without parameters: the state, which is the solution [B]."""

    def forward(self, states: States) -> Tensor:
        """The solution [B]."""
        return states.pooled.squeeze(-1)


class PhysicsModel(MultiTaskModel):
    """A field whose outputs are the solution, and whose losses are mean squares of residuals."""

    def __init__(self, field: Field, tasks: tuple[Task, ...], equation: Equation) -> None:
        super().__init__(field, tasks, {task.name: Solution() for task in tasks})
        self.equation = equation

    def forward(self, inputs: dict[str, Any], targets: dict[str, Tensor] | None = None) -> Output:
        """Without targets the solution; with them the squared residuals [B] of each task in them.

        The targets' values do not count: the reference that dev and test hold is nothing to learn from.
        """
        if targets is None:
            return super().forward(inputs)
        field = self.encoder
        assert isinstance(field, Field)
        with torch.enable_grad():  # an equation's derivatives are taken where losses are only read, too
            residuals = {name: self.equation.residual(name, field.at, inputs["points"]) for name in targets}
        squares = {name: residual.square() for name, residual in residuals.items()}
        lowest = {name: torch.zeros_like(square) for name, square in squares.items()}
        tasks = [task for task in self.tasks if task.name in squares]
        return Output(
            squares, {task.name: task.loss(squares[task.name], lowest[task.name]) for task in tasks}
        )


@dataclass(frozen=True)
class Physics(Problem):
    """A problem that is an equation."""

    equation: Equation | None = None

    def build(self) -> MultiTaskModel:
        """A new field, with weights drawn from torch's global generator."""
        field = self.encoder()
        assert isinstance(field, Field) and self.equation is not None
        return PhysicsModel(field, self.tasks, self.equation)


def _physics(equation: Equation, name: str, options: Mapping[str, Any]) -> Problem:
    """``points`` of the domain are trained on, drawn with a fixed seed; ``hidden`` and ``layers`` of the
    network. Scores are the relative L2 error on a grid, of which a constant 0 has 1.

    Raises:
        ValueError: an unknown option.
    """
    chosen = take(options, OPTIONS, name)
    draw = np.random.default_rng(SPLIT_SEED)
    train, dev = (_points(draw.random((n, 2)), equation) for n in (chosen["points"], N_DEV))
    x, t = np.meshgrid((np.arange(GRID[0]) + 0.5) / GRID[0], np.linspace(0, 1, GRID[1]), indexing="ij")
    test = _points(np.stack([x.ravel(), t.ravel()], 1), equation)
    tasks = tuple(
        Task(term, "objective", ("relative_l2", "mse"), untrained=1.0, target=0.0) for term in equation.terms
    )
    splits = {
        "train": _examples(train, np.zeros(len(train)), equation),
        "dev": _examples(dev, equation.solution(dev), equation),
        "test": _examples(test, equation.solution(test), equation),
    }
    encoder = partial(Field, chosen["hidden"], chosen["layers"])
    hidden, layers = chosen["hidden"], chosen["layers"]
    space = {"hidden": [max(1, hidden // 2), hidden, 2 * hidden], "layers": (1, max(6, layers))}
    own: dict[str, Any] = {"settings": dict(_SETTINGS), "space": space, "options": chosen}
    return Physics(name, tasks, splits, _inputs, encoder, **own, equation=equation)


def burgers(name: str, options: Mapping[str, Any]) -> Problem:
    """The viscous Burgers' equation, see `Burgers` and `_physics`."""
    return _physics(Burgers(), name, options)


def helmholtz(name: str, options: Mapping[str, Any]) -> Problem:
    """The Helmholtz equation, see `Helmholtz` and `_physics`."""
    return _physics(Helmholtz(), name, options)


def _points(unit: np.ndarray, equation: Equation) -> np.ndarray:
    """Points [N, 2] of the unit square, moved to the domain, as float32 keeps them."""
    low = np.array([-1.0, equation.low])
    return np.asarray((low + unit * (1 - low)).astype(np.float32), dtype=np.float64)


def _examples(points: np.ndarray, values: np.ndarray, equation: Equation) -> list[Example]:
    values = values.round(8)  # the last digits are the machine's, and the data's digest should not be
    return [
        {"input": point, "targets": dict.fromkeys(equation.terms, value)}
        for point, value in zip(points.tolist(), values.tolist(), strict=True)
    ]


def _inputs(points: list[Any]) -> dict[str, Any]:
    return {"points": torch.tensor(points, dtype=torch.float32).reshape(-1, 2)}
