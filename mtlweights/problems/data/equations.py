"""Differential equations with a known solution: what a network's derivatives should fulfil, term by term.

Every term is a residual at any point of the domain [-1, 1] x [low, 1]: a condition on the border is taken at
the point's projection on it. So a batch of points holds all terms, and no term needs batches of its own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]  #: from points [B, 2] to the solution [B]


def derivative(values: Tensor, points: Tensor) -> Tensor:
    """Gradient [B, 2] of values [B], each of one point [B, 2], with its graph."""
    (found,) = torch.autograd.grad(values.sum(), points, create_graph=True)
    return found


class Equation(ABC):
    """A boundary value problem.

    Attributes:
        terms: name of each loss term.
        low: lowest value of the second coordinate; the first is in [-1, 1], both end at 1.
    """

    terms: tuple[str, ...]
    low: float = -1.0

    @abstractmethod
    def residual(self, term: str, field: Function, points: Tensor) -> Tensor:
        """What should be 0 [B] at points [B, 2]."""

    @abstractmethod
    def solution(self, points: np.ndarray) -> np.ndarray:
        """The reference [N] at points [N, 2], in float64."""


class Burgers(Equation):
    """``u_t + u u_x = nu u_xx``, x in [-1, 1], t in [0, 1], from ``-sin(pi x)``, with u = 0 at x = -1 and 1.

    ``nu = 0.01 / pi``, as in M. Raissi, P. Perdikaris, G. Karniadakis, "Physics-informed neural networks",
    Journal of Computational Physics 378, 2019. The reference is the Cole-Hopf solution, two integrals over a
    Gaussian (E. Hopf, 1950) by Gauss-Hermite quadrature, as C. Basdevant et al. 1986 use it.
    """

    terms = ("equation", "boundary", "initial")
    low, nu = 0.0, 0.01 / math.pi

    def residual(self, term: str, field: Function, points: Tensor) -> Tensor:
        """Of ``equation``, ``boundary`` at (x's sign, t) or ``initial`` at (x, 0)."""
        x, t = points.unbind(-1)
        if term == "boundary":
            return field(torch.stack([torch.where(x < 0, -1.0, 1.0), t], -1))
        if term == "initial":
            return field(torch.stack([x, torch.zeros_like(t)], -1)) + torch.sin(math.pi * x)
        points = points.detach().requires_grad_()
        u = field(points)
        u_x, u_t = derivative(u, points).unbind(-1)
        return u_t + u * u_x - self.nu * derivative(u_x, points)[:, 0]

    def solution(self, points: np.ndarray) -> np.ndarray:
        """The reference [N]."""
        x, t = points[:, :1], points[:, 1:]
        nodes, weights = np.polynomial.hermite.hermgauss(200)
        start = x - 2 * np.sqrt(self.nu * t) * nodes
        power = -np.cos(math.pi * start) / (2 * math.pi * self.nu)
        density = weights * np.exp(power - power.max(1, keepdims=True))
        u = -(density * np.sin(math.pi * start)).sum(1) / density.sum(1)
        return np.asarray(np.where(t[:, 0] > 0, u, -np.sin(math.pi * x[:, 0])))


class Helmholtz(Equation):
    """``u_xx + u_yy + u = q`` on [-1, 1]^2 with u = 0 on the border, where ``u = sin(pi x) sin(4 pi y)``.

    The setting of S. Wang, Y. Teng, P. Perdikaris, "Understanding and mitigating gradient flow pathologies in
    physics-informed neural networks", SIAM Journal on Scientific Computing 43, 2021. The two pairs of sides
    are two terms. At the start the equation's loss is about 7,000, those of the sides are below 1.
    """

    terms = ("equation", "sides_x", "sides_y")
    factors = (math.pi, 4 * math.pi)

    def residual(self, term: str, field: Function, points: Tensor) -> Tensor:
        """Of ``equation``, ``sides_x`` at (x's sign, y) or ``sides_y`` at (x, y's sign)."""
        x, y = points.unbind(-1)
        if term == "sides_x":
            return field(torch.stack([torch.where(x < 0, -1.0, 1.0), y], -1))
        if term == "sides_y":
            return field(torch.stack([x, torch.where(y < 0, -1.0, 1.0)], -1))
        points = points.detach().requires_grad_()
        u = field(points)
        u_x, u_y = derivative(u, points).unbind(-1)
        laplacian = derivative(u_x, points)[:, 0] + derivative(u_y, points)[:, 1]
        a, b = self.factors
        source = (1 - a**2 - b**2) * torch.sin(a * x) * torch.sin(b * y)
        return laplacian + u - source

    def solution(self, points: np.ndarray) -> np.ndarray:
        """The reference [N]."""
        a, b = self.factors
        return np.asarray(np.sin(a * points[:, 0]) * np.sin(b * points[:, 1]))
