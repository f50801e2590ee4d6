"""Problem: tasks, data splits and a model factory; what is trained on and benchmarked."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypedDict

import torch
from torch import Tensor

from ..specs import suggest
from .models import CascadedModel, Encoder, MultiTaskModel, Sharing
from .task import MISSING, Task


class Example(TypedDict):
    """One example. A task without a label here is left out of ``targets``, or None."""

    input: Any  #: words; a pair of lists of words; or a row of numbers
    targets: dict[str, Any]  #: task -> label ids, one a word; a label id; a number; or ids of pieces


class Batch(TypedDict):
    """Examples as tensors. A task without a labelled item in them is in neither targets nor counts."""

    inputs: dict[str, Any]  #: what the encoder takes
    targets: dict[str, Tensor]  #: task -> [B, W] or [B, L] int64, [B] int64 or [B] float32
    counts: dict[str, int]  #: task -> number of labelled items


@dataclass(frozen=True)
class Problem:
    """Tasks on shared data.

    Attributes:
        name: the spec that :func:`mtlweights.problems.load` makes it from.
        splits: ``train``, ``dev`` and ``test``, lists of examples.
        inputs: turns a list of example inputs into the encoder's tensors; fitted on the training split.
        encoder: makes the shared encoder, with weights drawn from torch's global generator.
        settings: this problem's defaults for ``mtlweights.train.Settings``.
        notes: what a user's file was taken for, a line for the file and for each task.
        space: the spec's options that are worth trying (the encoder's), see `mtlweights.strategies.space`.
        options: what those are in this problem.
        epoch: examples drawn per epoch, again and again where there are fewer; None: every labelled one once.
        cascade: tasks in the order in which each one's output is read by those after it; (): none is read.
        staged: the tasks of a cascade are taken up one after the other, see `mtlweights.train.stages`.
        sharing: the form in which the tasks share the encoder.
    """

    name: str
    tasks: tuple[Task, ...]
    splits: dict[str, list[Example]]
    inputs: Callable[[list[Any]], dict[str, Any]]
    encoder: Callable[[], Encoder]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    space: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    epoch: int | None = None
    cascade: tuple[str, ...] = ()
    staged: bool = False
    sharing: Sharing = Sharing()  # noqa: RUF009 (frozen)

    def __post_init__(self) -> None:
        form = self.sharing.form
        if self.cascade and form != "agnostic":
            raise ValueError(
                f"a cascade reads one shared encoder: training= does not go with sharing={form}."
            )

    def only(self, *names: str) -> Problem:
        """The same problem with these tasks alone; the examples stay.

        Training leaves out examples without any label of these tasks, so on data where each example is
        labelled for one task an epoch has fewer steps than the joint one.

        Raises:
            ValueError: no task of that name, or none given.
        """
        known = {task.name: task for task in self.tasks}
        if not names:
            raise ValueError(f"{self.name}: expected at least one task of {', '.join(known)}, found none.")
        for name in names:
            if name not in known:
                raise ValueError(f"{self.name} has no task {name!r}; {suggest(name, known)}")
        kept = tuple(name for name in self.cascade if name in names)
        cascade = kept if len(kept) > 1 else ()
        tasks = tuple(known[name] for name in dict.fromkeys(names))
        return replace(self, tasks=tasks, cascade=cascade, staged=self.staged and bool(cascade))

    def build(self) -> MultiTaskModel:
        """A new model, with weights drawn from torch's global generator."""
        encoder = self.sharing.around(self.encoder(), self.tasks)
        if self.cascade:
            return CascadedModel(encoder, self.tasks, self.cascade, detach=self.staged)
        return MultiTaskModel(encoder, self.tasks)

    def collate(self, examples: Sequence[Example]) -> Batch:
        """Make a batch; words beyond a sentence's end are missing (-100)."""
        targets, counts = {}, {}
        width = max((len(example["input"]) for example in examples), default=0)
        for task in self.tasks:
            target = _target(task, [example["targets"].get(task.name) for example in examples], width)
            if count := task.count(target):
                targets[task.name], counts[task.name] = target, count
        return {
            "inputs": self.inputs([example["input"] for example in examples]),
            "targets": targets,
            "counts": counts,
        }


def unlabelled(task: Task, examples: Sequence[Example]) -> Tensor:
    """The target of a task none of whose labels are there: all missing."""
    width = max((len(example["input"]) for example in examples), default=0)
    return _target(task, [None] * len(examples), width)


def _target(task: Task, values: list[Any], width: int) -> Tensor:
    if task.kind == "tokens":
        rows = [[*(value or []), *[MISSING] * (width - len(value or []))] for value in values]
        return torch.tensor(rows, dtype=torch.int64)
    if task.kind == "sequence":
        longest = max([len(value or []) for value in values] + [1])
        rows = [[*(value or []), *[MISSING] * (longest - len(value or []))] for value in values]
        return torch.tensor(rows, dtype=torch.int64)
    if task.kind == "classification":
        return torch.tensor([MISSING if value is None else value for value in values], dtype=torch.int64)
    return torch.tensor([math.nan if value is None else value for value in values], dtype=torch.float32)
