"""What the forms have in common: an encoder that gives every task states of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from ..encoders import Encoder, States
from .stack import Stack

Streams = dict[str, Tensor]  #: task -> hidden states


class Shared(Encoder, ABC):
    """An encoder whose layers the tasks share in some form.

    Parameters that serve one task alone are reached by its loss alone, so that a balancer finds them.

    Attributes:
        layers: for each layer its copies, a `Parallel`.
        said: the form's options in plain values.
    """

    per_task = True
    form: str
    layers: Any  # a ModuleList of these

    def __init__(self, stack: Stack, tasks: Sequence[str]) -> None:
        super().__init__()
        self.stack, self.tasks = stack, tuple(tasks)
        self.token_dim, self.pooled_dim = stack.token_dim, stack.pooled_dim
        self.said: dict[str, Any] = {}

    def forward(self, inputs: dict[str, Any], tasks: Sequence[str] | None = None) -> dict[str, States]:
        """The states of each of these tasks; None: of all."""
        asked = self.tasks if tasks is None else tuple(tasks)
        hidden, batch = self.stack.bottom(inputs)
        streams = self.streams(hidden, batch, asked)
        return {task: self.stack.top(streams[task], batch) for task in asked}

    @abstractmethod
    def streams(self, hidden: Tensor, batch: Any, tasks: Sequence[str]) -> Streams:
        """From the bottom's states to those of each task asked for."""

    def index(self, task: str) -> int:
        """Its place among all tasks."""
        return self.tasks.index(task)
