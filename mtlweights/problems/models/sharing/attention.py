"""MTAN: one network for all tasks, and for each task masks over what its layers give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Shared, Streams
from .stack import Stack


class MTAN(Shared):
    """Shared layers, and a soft attention module for every task and layer.

    S. Liu, E. Johns, A. J. Davison, "End-to-End Multi-Task Learning with Attention", CVPR 2019,
    https://arxiv.org/abs/1803.10704, equations 1 and 2: ``â_j = a_j * p_j`` with
    ``a_j = h(g([u_j; f(â_(j-1))]))``, u_j the states that go into layer j, p_j those that come out, g a
    linear layer and ReLU, h one and the sigmoid, f a layer that all tasks share. As in the authors' code on
    ResNet (github.com/lorenmt/mtan) the last mask is what the head is given, and g narrows to a quarter.

    Departures: layers are linear where theirs convolve, which is the same for states without neighbours, and
    there is no batch normalisation, which padding would enter.
    """

    form = "mtan"

    def __init__(self, stack: Stack, tasks: Sequence[str]) -> None:
        super().__init__(stack, tasks)
        self.layers = stack.copies([1] * stack.depth)
        widths = [(into + (number > 0) * into, out) for number, (into, out) in enumerate(_steps(stack))]
        self.masks: Any = nn.ModuleList(nn.ModuleList(_mask(*pair) for _ in tasks) for pair in widths)
        self.passed_on = nn.ModuleList(
            nn.Sequential(nn.Linear(out, out), nn.ReLU()) for _, out in _steps(stack)[:-1]
        )

    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """The masks of a layer first, then the layer: it is the last that all tasks share."""
        found: Streams = {}
        for number, (layer,) in enumerate(self.layers):
            seen = {task: self._seen(number, hidden, found.get(task)) for task in tasks}
            masks = {task: self.masks[number][self.index(task)](x) for task, x in seen.items()}
            hidden = self.stack.run(layer, hidden, batch)
            found = {task: mask * hidden for task, mask in masks.items()}
        return found

    def _seen(self, number: int, hidden: Tensor, before: Tensor | None) -> Tensor:
        """What a mask is made of."""
        return hidden if before is None else torch.cat([hidden, self.passed_on[number - 1](before)], -1)


def _steps(stack: Stack) -> list[tuple[int, int]]:
    return [*zip(stack.widths, stack.widths[1:], strict=False)]


def _mask(into: int, out: int) -> nn.Sequential:
    inner = max(1, out // 4)
    return nn.Sequential(nn.Linear(into, inner), nn.ReLU(), nn.Linear(inner, out), nn.Sigmoid())
