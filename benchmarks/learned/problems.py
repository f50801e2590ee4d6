"""Two problems in plain PyTorch for run.py: Burgers' equation, and regressions in unlike units."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mtlweights import Balancer

VISCOSITY = 0.01 / np.pi
UNIT = 30.0  #: the second regression's targets are this many times larger, its loss 900 times


def burgers(strategy: str, options: dict[str, float], seed: int, reference: Path) -> dict[str, float]:
    """``u_t + u u_x = nu u_xx`` with ``u(x, 0) = -sin(pi x)``: the squared error over the reference grid."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        *(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh()),
        nn.Linear(32, 1),
    )
    inside = torch.rand(1000, 2) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0])
    inside.requires_grad_()
    start = torch.stack([torch.linspace(-1, 1, 100), torch.zeros(100)], 1)
    ends = torch.stack([torch.tensor([-1.0, 1.0]).repeat(50), torch.rand(100)], 1)
    known = torch.cat([start, ends])
    values = torch.cat([-torch.sin(torch.pi * start[:, :1]), torch.zeros(100, 1)])

    def losses() -> dict[str, Tensor]:
        u = net(inside)
        (first,) = torch.autograd.grad(u.sum(), inside, create_graph=True)
        (second,) = torch.autograd.grad(first[:, 0].sum(), inside, create_graph=True)
        residual = first[:, 1] + u[:, 0] * first[:, 0] - VISCOSITY * second[:, 0]
        return {"equation": residual.square().mean(), "data": (net(known) - values).square().mean()}

    _train(net, strategy, options, losses, steps=5000, lr=1e-3)
    grid = np.load(reference)
    t, x = np.meshgrid(grid["t"][:, 0], grid["x"][:, 0])
    points = torch.tensor(np.stack([x.ravel(), t.ravel()], 1), dtype=torch.float32)
    with torch.no_grad():
        found = net(points)[:, 0].numpy().reshape(x.shape)
    return {"MSE": float(np.mean((found - grid["usol"]) ** 2))}


def units(strategy: str, options: dict[str, float], seed: int) -> dict[str, float]:
    """Two smooth functions of the same inputs, one in another unit: the share of variance not explained."""
    torch.manual_seed(seed)
    x, directions = torch.randn(1500, 8), torch.randn(8, 2)
    y = torch.sin(x @ directions / 2) + 0.1 * torch.randn(1500, 2)
    y = y * torch.tensor([1.0, UNIT])
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def losses() -> dict[str, Tensor]:
        batch = torch.randint(1000, (32,))
        one, two = (net(x[batch]) - y[batch]).square().mean(0)
        return {"one": one, "two": two}

    _train(net, strategy, options, losses, steps=3000, lr=1e-3)
    with torch.no_grad():
        error = (net(x[1000:]) - y[1000:]).square().mean(0) / y[1000:].var(0)
    return {"one": float(error[0]), "two": float(error[1])}


def _train(
    net: nn.Module,
    strategy: str,
    options: dict[str, float],
    losses: Callable[[], dict[str, Tensor]],
    steps: int,
    lr: float,
) -> None:
    optimizer = torch.optim.Adam(net.parameters(), lr=lr)
    balancer = Balancer(strategy, list(losses()), net, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        balancer(losses()).backward()
        optimizer.step()
