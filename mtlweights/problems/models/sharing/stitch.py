"""Cross-stitch networks: a network per task, whose states are mixed behind every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .base import Shared, Streams
from .stack import Stack

SAME = 0.9  #: a task's share of its own states at the start, as in the paper's section 4.3


class CrossStitch(Shared):
    """All layers in a copy per task; behind each, states are linear combinations of all tasks'.

    I. Misra et al., "Cross-stitch Networks for Multi-task Learning", CVPR 2016,
    https://arxiv.org/abs/1604.03539, equation 1, with one coefficient for a layer and a pair of tasks:
    ``x_i <- sum_j a_ij x_j``. A task's row is a parameter of its own: behind the last layer it serves this
    task alone.
    """

    form = "cross_stitch"

    def __init__(self, stack: Stack, tasks: Sequence[str]) -> None:
        super().__init__(stack, tasks)
        n = len(tasks)
        self.layers = stack.copies([n] * stack.depth)
        self.stitches: Any = nn.ModuleList(_rows(n) for _ in self.layers)

    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """All columns, since each feeds the others; behind the last layer the rows of the tasks asked for."""
        at = [hidden] * len(self.tasks)
        for number, copies in enumerate(self.layers):
            last = number == len(self.layers) - 1
            states = [self.stack.run(layer, x, batch) for layer, x in zip(copies, at, strict=True)]
            together, rows = torch.stack(states, -1), self.stitches[number]
            if last:
                return {task: together @ rows[self.index(task)] for task in tasks}
            at = [together @ row for row in rows]
        raise AssertionError("a stack has a layer")


def _rows(n: int) -> nn.ParameterList:
    same = SAME if n > 1 else 1.0
    start = torch.full((n, n), (1 - same) / max(n - 1, 1)).fill_diagonal_(same)
    return nn.ParameterList(nn.Parameter(row.clone()) for row in start)
