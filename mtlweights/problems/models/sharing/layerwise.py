"""Hard sharing, chosen per layer: task-dependent, and joint.

R. Caruana, "Multitask Learning", Machine Learning 28, 1997, https://doi.org/10.1023/A:1007379606734: layers
below are shared, those above a task's own. Here any layer may be either.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ...task import Task
from ..encoders import Encoder, States
from .base import Shared, Streams
from .stack import Stack


class TaskDependent(Shared):
    """Some layers shared, others a task's own.

    Args:
        private: numbers from 1 of the layers that every task has of its own; None: the last one. Above a
            private layer a shared one is the same for all tasks, and each runs its own states through it.

    Raises:
        ValueError: no such layer.
    """

    form = "task_dependent"

    def __init__(
        self, stack: Stack, tasks: Sequence[str], private: int | Sequence[int] | None = None
    ) -> None:
        super().__init__(stack, tasks)
        chosen = [stack.depth] if private is None else [private] if isinstance(private, int) else [*private]
        known = range(1, stack.depth + 1)
        if not chosen or len({*chosen}) < len(chosen) or any(k not in known for k in chosen):
            raise ValueError(
                f"private should be numbers of the {stack.depth} hidden layers, from 1, each once, found "
                f"{private!r}."
            )
        self.said = {"private": sorted(chosen)}
        self.layers = stack.copies([len(tasks) if k in chosen else 1 for k in known])

    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """Once for all tasks as far as they are one, then for each."""
        found: Streams = {}
        for copies, k in zip(self.layers, range(1, len(self.layers) + 1), strict=True):
            if not found and k not in self.said["private"]:
                hidden = self.stack.run(copies[0], hidden, batch)
                continue
            found = found or dict.fromkeys(tasks, hidden)
            which = {task: self.index(task) if k in self.said["private"] else 0 for task in tasks}
            found = {task: self.stack.run(copies[which[task]], found[task], batch) for task in tasks}
        return found


class Joint(Encoder):
    """All layers and one output layer: a task's outputs are columns of it.

    The function is that of a shared encoder with an output layer per task; what differs is what is shared.
    To a balancer the one layer is shared, so that gradients are measured there too, and a weight applies to
    it whatever the strategy gives heads. Tasks of words have one such layer, those of examples another.
    """

    def __init__(self, encoder: Encoder, tasks: Sequence[Task]) -> None:
        super().__init__()
        self.encoder = encoder
        self.places: dict[str, tuple[int, int]] = {}
        widths = {True: 0, False: 0}
        for task in tasks:
            words = task.kind == "tokens"
            self.places[task.name] = (widths[words], widths[words] + task.n_outputs)
            widths[words] += task.n_outputs
        if widths[True] and encoder.token_dim is None:
            raise ValueError(f"a task labels words, but {type(encoder).__name__} gives none.")
        self.token_dim, self.pooled_dim = widths[True] or None, widths[False]
        self.of_words = nn.Linear(encoder.token_dim or 0, widths[True]) if widths[True] else None
        self.of_examples = nn.Linear(encoder.pooled_dim, widths[False]) if widths[False] else None

    def around(self, encoder: Encoder) -> Joint:
        """The same output layers around another encoder, which gives the same states."""
        other = copy.copy(self)
        other._modules = {**self._modules, "encoder": encoder}
        return other

    def forward(self, inputs: dict[str, Any]) -> States:
        """Every task's outputs in the place of states."""
        tokens, mask, pooled = self.encoder(inputs)
        return States(
            None if self.of_words is None else self.of_words(tokens),
            mask,
            pooled[..., :0] if self.of_examples is None else self.of_examples(pooled),
        )

    def output(self, task: Task, width: int) -> nn.Module:
        """The task's columns."""
        return Columns(*self.places[task.name])


class Columns(nn.Module):
    """Some columns of what is given."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.start, self.end = start, end

    def forward(self, x: Tensor) -> Tensor:
        """x[..., start:end]."""
        return torch.narrow(x, -1, self.start, self.end - self.start)
