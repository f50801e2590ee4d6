"""The two-dimensional problem of the CAGrad and Nash-MTL papers: two losses of one point, no data.

B. Liu, X. Liu, X. Jin, P. Stone, Q. Liu, "Conflict-Averse Gradient Descent for Multi-task Learning",
NeurIPS 2021, https://arxiv.org/abs/2110.14048, figure 1; A. Navon et al., "Multi-Task Learning as a
Bargaining Game", ICML 2022, https://arxiv.org/abs/2202.01017, figure 1 and appendix B. The five starts and
the factor 0.1 on the first loss are the latter's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ...specs import suggest
from ..models import Encoder, MultiTaskModel, States
from ..problem import Example, Problem
from ..task import Task

STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
NAMES = ("l1", "l2")
LOWEST = -20.0  #: no value of either loss is below
BOUND = -21.0  #: what the authors of FAMO subtract from either loss, so that it is positive
STEPS = 1000  #: of an epoch: as many copies of one empty example


def losses(x: Tensor) -> Tensor:
    """Both losses [..., 2], unscaled, of points ``x`` [..., 2].

    Above ``x2 = 0`` two narrow valleys, one per loss, down which the logarithm falls steeply; below it two
    flat bowls about ``x1 = 7`` and ``x1 = -7``. At ``x2 = 0``, where the halves meet, both give their
    gradient, as in the authors' code.
    """
    x1, x2 = x.unbind(-1)
    bend = torch.tanh(x2)
    valleys = torch.stack([(-x1 - 7) / 2 + bend, (-x1 + 3) / 2 - bend + 2], -1)
    depth = (x2 + 8).square() / 10
    bowls = torch.stack([(x1 - 7).square() + depth, (x1 + 7).square() + depth], -1) / 10 - 20
    half = torch.tanh(x2 / 2).unsqueeze(-1)
    return (valleys.abs().clamp(min=5e-6).log() + 6) * half.clamp(min=0) + bowls * (-half).clamp(min=0)


def front(x1: np.ndarray) -> np.ndarray:
    """x2 of the Pareto set's points with these ``x1``, each in [-7, 7]; a slightly bent line near -8.4.

    The first component of ``a g1 + (1 - a) g2 = 0`` says ``a = (x1 + 7) / 14``; the second is solved for x2
    by a fixed point that gains almost half a digit a round. No scale of either loss moves the set.
    """
    x2 = np.full_like(x1, -8.0, dtype=np.float64)
    for _ in range(60):
        half = np.tanh(-x2 / 2)
        bowl = (49 - np.square(x1) + np.square(x2 + 8) / 10) / 10 - 20
        x2 = -8 + 25 * (1 - half**2) / half * bowl
    return np.asarray(x2)


def distance(x: np.ndarray) -> np.ndarray:
    """How far points ``x`` [..., 2] are from the Pareto set [...]: along x2, or from an end."""
    x1 = np.clip(x[..., 0], -7, 7)
    return np.asarray(np.hypot(x[..., 0] - x1, x[..., 1] - front(x1)))


class Point(Encoder):
    """The model's only parameter, a point x [2], as the state of every example."""

    pooled_dim = 2

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.x = nn.Parameter(torch.tensor(start))

    def forward(self, inputs: dict[str, Any]) -> States:
        """x, once for each of ``inputs["examples"]`` [B]."""
        return States(None, None, self.x.expand(len(inputs["examples"]), 2))


class Loss(nn.Module):
    """A head without parameters: one of the two `losses`, times ``scale``."""

    def __init__(self, index: int, scale: float) -> None:
        super().__init__()
        self.index, self.scale = index, scale

    def forward(self, states: States) -> Tensor:
        """The loss [B]."""
        return self.scale * losses(states.pooled)[:, self.index]


class Toy(Problem):
    """A problem whose heads are given: they are the losses."""

    def build(self) -> MultiTaskModel:
        """The point at the start."""
        heads: dict[str, nn.Module] = {
            task.name: Loss(NAMES.index(task.name), task.target / LOWEST) for task in self.tasks
        }
        return MultiTaskModel(self.encoder(), self.tasks, heads)


def toy(name: str, options: Mapping[str, Any]) -> Problem:
    """``start`` 1 to 5, and ``scale`` of the first loss.

    What is trained on is each loss less its lower bound, ``BOUND`` times its scale: the same gradients, and
    positive, as methods on logarithms or ratios of losses need it. The metric is the loss itself.
    """
    number, scale = _options(name, options)
    start, scales = STARTS[number - 1], (float(scale), 1.0)
    at_start = losses(torch.tensor(start, dtype=torch.float64)).tolist()
    tasks = tuple(
        Task(task, "objective", ("value",), untrained=factor * value, target=factor * LOWEST)
        for task, factor, value in zip(NAMES, scales, at_start, strict=True)
    )
    example: Example = {
        "input": (),
        "targets": {task: factor * BOUND for task, factor in zip(NAMES, scales, strict=True)},
    }
    splits = {"train": [example] * STEPS, "dev": [example], "test": [example]}
    settings = {"epochs": 35, "batch_size": 1, "lr": 1e-3, "weight_decay": 0.0, "schedule": "constant"}
    settings |= {"warmup": 0.0, "clip": None, "device": "cpu"}
    return Toy(name, tasks, splits, _inputs, partial(Point, start), settings)


def _options(name: str, options: Mapping[str, Any]) -> tuple[int, float]:
    chosen = {"start": 1, "scale": 0.1, **options}
    if strange := chosen.keys() - {"start", "scale"}:
        key = min(strange)
        raise ValueError(f"{name}: there is no option {key!r}; {suggest(key, ('start', 'scale'))}")
    start, scale = chosen["start"], chosen["scale"]
    if type(start) is not int or not 1 <= start <= len(STARTS):
        raise ValueError(f"{name}: start should be a whole number from 1 to {len(STARTS)}, found {start!r}.")
    if type(scale) not in (int, float) or not 0 < scale < math.inf:
        raise ValueError(f"{name}: scale should be a number above 0, found {scale!r}.")
    return start, scale


def _inputs(examples: list[Any]) -> dict[str, Any]:
    return {"examples": torch.zeros(len(examples))}
