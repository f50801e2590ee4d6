"""Ways down the toy problem with Adam: through the Balancer, or by a strategy's weights alone.

The second goes without torch, in a fiftieth of the time; both give the same points, and `run.py` checks it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from mtlweights import Balancer, strategies
from mtlweights.problems.data.toy import BOUND
from mtlweights.specs import parse_spec
from mtlweights.strategies import GramStrategy

RATE, BETAS, EPSILON = 1e-3, (0.9, 0.999), 1e-8  #: of Adam
CLIP = {"nash_mtl": 1.0, "fairgrad": 1.0}  #: largest gradient norm, where the authors' code clips
TASKS = ("l1", "l2")


def closed_form(x1: float, x2: float) -> tuple[list[float], list[tuple[float, float]]]:
    """The two `mtlweights.problems.data.toy.losses` at a point, less BOUND, and their gradients."""
    bend, half, depth = math.tanh(x2), math.tanh(x2 / 2), (x2 + 8) ** 2 / 10
    up, down, slope = max(half, 0.0), max(-half, 0.0), (1 - half**2) / 2
    # where the halves meet both give a gradient, as in `losses`
    rise, fall = slope * (x2 >= 0), -slope * (x2 <= 0)
    values, rows = [], []
    for sign, centre in ((1, 7), (-1, -7)):
        valley = (-x1 - centre) / 2 + sign * bend
        deep = math.log(max(abs(valley), 5e-6)) + 6
        steep = up / valley if abs(valley) >= 5e-6 else 0.0
        bowl = ((x1 - centre) ** 2 + depth) / 10 - 20
        values.append(deep * up + bowl * down - BOUND)
        across = -steep / 2 + (x1 - centre) / 5 * down
        along = steep * sign * (1 - bend**2) + deep * rise + (x2 + 8) / 50 * down + bowl * fall
        rows.append((across, along))
    return values, rows


class Losses(torch.autograd.Function):
    """`closed_form` under autograd."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Both losses [] of x [2]."""
        values, rows = closed_form(*x.tolist())
        ctx.rows = x.new_tensor(rows)
        return x.new_tensor(values[0]), x.new_tensor(values[1])

    @staticmethod
    def backward(ctx: Any, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """The gradient [2] in x."""
        return torch.stack([first, second]) @ ctx.rows


def through_balancer(
    spec: str, start: tuple[float, float], scale: float, steps: int
) -> Iterator[tuple[float, float]]:
    """The points of ``steps`` steps along what ``Balancer.backward`` leaves in ``.grad``, the start first."""
    name, options = parse_spec(spec)
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    balancer = Balancer(name, TASKS, **options)
    optimizer = torch.optim.Adam([x], lr=RATE, betas=BETAS, eps=EPSILON, foreach=False)
    balancer.attach(optimizer)

    def current() -> dict[str, torch.Tensor]:
        first, second = Losses.apply(x)
        return {"l1": scale * first, "l2": second}

    yield start
    for _ in range(steps):
        optimizer.zero_grad()
        balancer.backward(current())
        if name in CLIP:
            torch.nn.utils.clip_grad_norm_([x], CLIP[name])
        optimizer.step()
        balancer.after_step(current)
        yield tuple(x.tolist())


def by_weights(
    spec: str, start: tuple[float, float], scale: float, steps: int
) -> Iterator[tuple[float, float]]:
    """The same for equal weights and Gramian strategies: weights of the two gradients' Gramian, then Adam."""
    name, options = parse_spec(spec)
    strategy = strategies.get(name)(len(TASKS), **options)
    ask = strategy.weights if isinstance(strategy, GramStrategy) else lambda gram, values: np.ones(len(TASKS))
    clip = CLIP.get(name, math.inf)
    point, first, second = list(start), [0.0, 0.0], [0.0, 0.0]
    yield start
    for step in range(1, steps + 1):
        (l1, l2), ((a, b), (c, d)) = closed_form(*point)
        a, b = scale * a, scale * b
        gram = np.array([[a * a + b * b, a * c + b * d], [a * c + b * d, c * c + d * d]])
        v, w = ask(gram, np.array([scale * l1, l2])).tolist()
        gradient = (v * a + w * c, v * b + w * d)
        factor = min(clip / (math.hypot(*gradient) + 1e-6), 1.0)
        for i in range(2):
            g = factor * gradient[i]
            first[i] += (1 - BETAS[0]) * (g - first[i])
            second[i] = BETAS[1] * second[i] + (1 - BETAS[1]) * g * g
            size = math.sqrt(second[i] / (1 - BETAS[1] ** step)) + EPSILON
            point[i] -= RATE / (1 - BETAS[0] ** step) * first[i] / size
        yield point[0], point[1]


def has_weights(spec: str) -> bool:
    """Whether `by_weights` can run the strategy."""
    name, _ = parse_spec(spec)
    return name == "equal" or issubclass(strategies.get(name), GramStrategy)
