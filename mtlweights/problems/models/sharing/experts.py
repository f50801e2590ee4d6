"""Experts that a gate mixes: MMoE, and CGC and PLE."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from .base import Shared, Streams
from .stack import Stack


def _gate(width: int, n: int) -> nn.Linear:
    return nn.Linear(width, n, bias=False)


def mix(gate: nn.Module, x: Tensor, experts: Sequence[Tensor]) -> Tensor:
    """``sum_e softmax(gate(x))_e experts_e``, for states of words word by word."""
    shares = torch.softmax(gate(x), -1)
    return (torch.stack([*experts], -1) * shares.unsqueeze(-2)).sum(-1)


class MMoE(Shared):
    """Multi-gate mixture of experts: all layers in ``experts`` copies, and a gate per task that mixes them.

    J. Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts",
    KDD 2018, https://doi.org/10.1145/3219819.3220007, equations 5 and 6:
    ``f_t = sum_e softmax(W_t x)_e f_e(x)``, x the bottom's states.
    """

    form = "mmoe"

    def __init__(self, stack: Stack, tasks: Sequence[str], experts: int = 4) -> None:
        super().__init__(stack, tasks)
        self.said = {"experts": experts}
        self.layers = stack.copies([experts] * stack.depth)
        self.gates = nn.ModuleList(_gate(stack.widths[0], experts) for _ in tasks)

    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """Every expert once, then every task's mixture."""
        found = [hidden] * self.said["experts"]
        for copies in self.layers:
            found = [self.stack.run(layer, x, batch) for layer, x in zip(copies, found, strict=True)]
        return {task: mix(self.gates[self.index(task)], hidden, found) for task in tasks}


class PLE(Shared):
    """Progressive layered extraction: beside shared experts some of each task's own, in one level or several.

    H. Tang et al., "Progressive Layered Extraction (PLE): A Novel Multi-Task Learning (MTL) Model for
    Personalized Recommendations", RecSys 2020, https://doi.org/10.1145/3383313.3412236: with one level it is
    CGC (equations 1 to 4); below the last level a gate over all experts gives what the shared ones of the
    next level are given. A level's experts are the stack's next layers, ``depth / levels`` of them.

    In one level a task's own experts serve it alone; below another level they serve all tasks.

    Args:
        experts: shared ones of a level.
        own_experts: of each task in a level.

    Raises:
        ValueError: more levels than layers.
    """

    form = "ple"

    def __init__(
        self, stack: Stack, tasks: Sequence[str], experts: int = 2, own_experts: int = 2, levels: int = 1
    ) -> None:
        super().__init__(stack, tasks)
        if levels > stack.depth:
            raise ValueError(f"levels should be at most the {stack.depth} hidden layers, found {levels}.")
        self.said = {"experts": experts, "own_experts": own_experts, "levels": levels}
        every = experts + own_experts * len(tasks)
        self.layers = stack.copies([every] * stack.depth)
        ends = [stack.depth * level // levels for level in range(levels + 1)]
        self.levels = [range(*pair) for pair in pairwise(ends)]
        widths = [stack.widths[start] for start in ends[:-1]]
        self.gates: Any = nn.ModuleList(
            nn.ModuleList(_gate(width, own_experts + experts) for _ in tasks) for width in widths
        )
        self.shared_gates = nn.ModuleList(_gate(width, every) for width in widths[:-1])

    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """Level by level; what only tasks that are not asked for need is left out of the last one."""
        at: Streams = dict.fromkeys(self.tasks, hidden)
        common = hidden
        for number, level in enumerate(self.levels):
            last = number == len(self.levels) - 1
            asked = tasks if last else self.tasks
            own = {task: self._experts(level, self.index(task), at[task], batch) for task in asked}
            shared = self._experts(level, len(self.tasks), common, batch)
            gates = self.gates[number]
            mixed = {t: mix(gates[self.index(t)], at[t], [*own[t], *shared]) for t in asked}
            if not last:
                every = [expert for task in self.tasks for expert in own[task]]
                common = mix(self.shared_gates[number], common, [*every, *shared])
            at = mixed
        return at

    def _experts(self, level: range, owner: int, x: Tensor, batch: Any) -> list[Tensor]:
        """What the experts of a task give, or the shared ones, which come after all tasks'."""
        n, first = self.said["own_experts"], owner * self.said["own_experts"]
        n = self.said["experts"] if owner == len(self.tasks) else n
        found = [x] * n
        for k in level:
            copies = [*self.layers[k]][first : first + n]
            found = [self.stack.run(layer, y, batch) for layer, y in zip(copies, found, strict=True)]
        return found
