"""Score a model on a split."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..gradients.fsdp import is_sharded
from ..problems import Task
from .processes import Processes
from .settings import one_of, resolve_device

if TYPE_CHECKING:
    from ..problems import Example, Problem

Scored = dict[str, tuple[Tensor, Tensor]]  #: task -> output and target of a batch


def evaluate(
    model: nn.Module,
    problem: Problem,
    split: str = "dev",
    *,
    batch_size: int = 64,
    device: str | None = None,
    processes: Processes | None = None,
) -> dict[str, dict[str, float]]:
    """Every metric of every task on a split: {task: {metric: value}}.

    Batches come in the split's order, without gradient, with the model in evaluation mode for the while.
    With `device` ("auto", "cpu", "cuda", "mps") the model is moved there, else it is used where it is.
    In float32; the dev scores `fit` reports are in the precision of the run.

    Args:
        processes: Those that take the batches in turn: all call this, and get the scores of the whole split,
            as one process would. (A model sharded by FSDP2 wants the call in all, with or without.)

    Raises:
        ValueError: no such split or device, or a task without a label in the split.
    """
    check_split(problem, split)
    if device is not None:
        model.to(resolve_device(device))
    these = Processes() if processes is None else processes
    examples = problem.splits[split]
    batches = [examples[start : start + batch_size] for start in range(0, len(examples), batch_size)]
    found: list[tuple[int, Scored]] = []
    with modes_kept(model), torch.no_grad():
        model.eval()
        for k in range(these.rank, len(batches), these.number):
            found.append((k, _scored(model, problem, batches[k])))
        if is_sharded(model) and len(found) * these.number < len(batches):
            _scored(model, problem, batches[0])  # for the others' sake, whose batch this is the last of
    pairs = sorted((pair for part in these.gather(found) for pair in part), key=itemgetter(0))
    every = [batch for _, batch in pairs]
    return these.same(lambda: {task.name: _score(task, every) for task in problem.tasks})


def _scored(model: nn.Module, problem: Problem, examples: list[Example]) -> Scored:
    """Task -> output and target of a batch, on the CPU, for the tasks with a label in it."""
    batch = problem.collate(examples)
    outputs = model(to_device(batch["inputs"], next(model.parameters()).device)).outputs
    return {name: (outputs[name].float().cpu(), target) for name, target in batch["targets"].items()}


def _score(task: Task, batches: list[Scored]) -> dict[str, float]:
    found = [batch[task.name] for batch in batches if task.name in batch]
    return task.score([output for output, _ in found], [target for _, target in found])


def is_labelled(task: Task, example: Example) -> bool:
    """Whether the example has a label, or a word with one, for the task."""
    target = example["targets"].get(task.name)
    return target is not None and task.count(torch.as_tensor(target)) > 0


def check_split(problem: Problem, split: str) -> None:
    """Raise ValueError unless the problem has the split, and a label for every task in it."""
    one_of("split", split, tuple(problem.splits))
    examples = problem.splits[split]
    if not examples:
        raise ValueError(f"the {split} split of problem {problem.name!r} is empty: nothing to learn or score")
    bare = [task.name for task in problem.tasks if not any(is_labelled(task, e) for e in examples)]
    if bare:
        raise ValueError(
            f"the {split} split of problem {problem.name!r} has no label for {', '.join(bare)}: "
            "leave the task out (problem.only) or add labels"
        )


@contextmanager
def modes_kept(model: nn.Module) -> Iterator[None]:
    """Put each module back, at the end, into the mode (training or evaluation) it was in."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def to_device(inputs: Any, device: torch.device) -> Any:
    """Tensors in nested dicts, moved."""
    if isinstance(inputs, dict):
        return {name: to_device(value, device) for name, value in inputs.items()}
    return inputs.to(device) if isinstance(inputs, Tensor) else inputs
