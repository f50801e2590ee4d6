"""A few steps of training a small model, on any device, and how far they are from the CPU's in float64."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import toys
from torch import Tensor, nn

from mtlweights import Balancer, strategies

TASKS, STEPS, RATE = 3, 3, 0.02
ABSENT = (None, (0, 2), None)  #: the tasks at hand in each step, None: all
Losses = Callable[[int], dict[str, Tensor]]  # of a step


@dataclass
class Way:
    """How the steps are made; the reference is the same on the CPU, in float64."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    path: str = "backward"  #: or "call"
    arguments: dict[str, Any] = field(default_factory=dict)  #: of the balancer
    features: bool = False  #: the balancer gets the module that gives the representation
    only: tuple[tuple[int, ...] | None, ...] = (None,) * STEPS
    autocast: torch.dtype | None = None
    around: Callable[[], AbstractContextManager[object]] = nullcontext  #: of a whole step
    prepare: Callable[[nn.Module], nn.Module] = lambda model: model  #: captures, compiles


@dataclass
class Trace:
    """Gradients [P] of each step, the parameters at the end, the steps the balancer counts."""

    gradients: list[Tensor]
    reached: list[tuple[bool, ...]]
    end: Tensor
    steps: int
    balancer: Balancer


def model_on(device: torch.device, dtype: torch.dtype) -> nn.Module:
    return toys.toy(TASKS).to(device, dtype)


def batch_on(device: torch.device, dtype: torch.dtype, step: int) -> tuple[Tensor, ...]:
    x, y, z = toys.batch(seed=1 + step)
    return x.to(device, dtype), y.to(device, dtype), z.to(device)


def needs_batches(name: str) -> int:
    """Batches that the strategy stacks into one step."""
    return getattr(strategies.get(name), "batches", 1)


def backward(
    balancer: Balancer, losses: Callable[[], dict[str, Tensor]], path: str, scaler: Any = None
) -> None:
    """The backward passes of one step."""
    parts = getattr(balancer.strategy, "batches", 1)
    for _ in range(parts):
        if path == "call":
            scalar = balancer(losses()) / parts
            (scalar if scaler is None else scaler.scale(scalar)).backward()
        else:
            values = losses()
            one = torch.full((), 1 / parts, device=next(iter(values.values())).device)
            balancer.backward(values, gradient=one if scaler is None else scaler.scale(one))


def train(name: str, way: Way) -> Trace:
    """Three steps of SGD."""
    model = model_on(way.device, way.dtype)
    arguments = way.arguments | ({"features": model.frozen} if way.features else {})
    balancer = Balancer(name, toys.names(TASKS), model, **arguments)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    balancer.attach(optimizer)
    forward = way.prepare(model)
    gradients, reached = [], []
    micro = arguments.get("accumulation_steps") or 1
    for step in range(STEPS):
        with way.around():
            for part in range(micro):
                data = batch_on(way.device, way.dtype, STEPS * part + step)
                backward(balancer, lambda: losses_of(forward, data, way, step), way.path)  # noqa: B023
            gradients.append(flat(model))
            reached.append(tuple(p.grad is not None for p in model.parameters()))
            optimizer.step()
            optimizer.zero_grad()
    balancer.state_dict()
    end = torch.cat([p.detach().double().flatten().cpu() for p in model.parameters()])
    return Trace([g.cpu() for g in gradients], reached, end, int(balancer.strategy.step), balancer)


def losses_of(forward: nn.Module, data: tuple[Tensor, ...], way: Way, step: int) -> dict[str, Tensor]:
    only = way.only[step]
    kind = way.device.type
    with torch.autocast(kind, way.autocast or torch.bfloat16, enabled=way.autocast is not None):
        return {f"t{i}": x for i, x in enumerate(forward(data)) if only is None or i in only}


def flat(model: nn.Module) -> Tensor:
    """The gradients end to end, zero where there is none, on their device."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([part.double().flatten() for part in parts])


#: strategies whose random numbers are drawn on the device of the gradients: others on another device
DRAWN = {"graddrop"}


@cache
def _reference(
    name: str, on: tuple[torch.device, torch.dtype], key: tuple[Any, ...], features: bool, only: Any
) -> Trace:
    return train(name, Way(*on, arguments=dict(key), features=features, only=only))


def reference(name: str, way: Way) -> Trace:
    """The steps on the CPU in float64; for what draws on the device, there."""
    on = (way.device, way.dtype) if name in DRAWN else (torch.device("cpu"), torch.float64)
    return _reference(name, on, tuple(way.arguments.items()), way.features, way.only)


def distance(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over the length expected; not finite is infinitely far."""
    if not bool(found.isfinite().all()):
        return float("inf")
    return float((found - expected).norm() / expected.norm().clamp(min=1e-300))
