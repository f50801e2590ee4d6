"""Score a model on a split."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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

Outputs = list[tuple[int, Tensor, Tensor]]


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
    if device is not None:
        model.to(resolve_device(device))
    these = Processes() if processes is None else processes
    outputs = outputs_of(model, problem, split, batch_size, these)
    return these.same(lambda: scores_of(problem, outputs))


def scores_of(problem: Problem, outputs: Mapping[str, Outputs]) -> dict[str, dict[str, float]]:
    """Every metric of every task on what `outputs_of` gave."""
    return {
        task.name: task.score([found for _, found, _ in own], [target for _, _, target in own])
        for task, own in ((task, outputs[task.name]) for task in problem.tasks)
    }


def outputs_of(
    model: nn.Module,
    problem: Problem,
    split: str,
    batch_size: int = 64,
    processes: Processes | None = None,
) -> dict[str, Outputs]:
    """A model's outputs on a split: task -> batches, as (number of the first example, outputs, targets).

    A batch without a label of the task is not among them. ``processes`` take the batches in turn: the first
    one gets all, the others nothing.

    Raises:
        ValueError: as `evaluate`.
    """
    check_split(problem, split)
    these = Processes() if processes is None else processes
    place, examples = next(model.parameters()).device, problem.splits[split]
    mine: dict[str, Outputs] = {task.name: [] for task in problem.tasks}
    number = -(-len(examples) // batch_size)
    # shards want all processes in every pass: one that has no batch left sees another's again
    passes = -(-number // these.number) * these.number if is_sharded(model) else number
    with modes_kept(model), torch.no_grad():
        model.eval()
        for k in range(these.rank, passes, these.number):
            start = k % number * batch_size
            batch = problem.collate(examples[start : start + batch_size])
            found = model(to_device(batch["inputs"], place)).outputs
            for name, target in batch["targets"].items() if k < number else ():
                mine[name].append((start, found[name].float().cpu(), target))
    every: dict[str, Outputs] = {}
    for part in these.gather(mine):
        for name, own in part.items():
            every[name] = sorted([*every.get(name, []), *own], key=itemgetter(0))
    return every


def is_labelled(task: Task, example: Example) -> bool:
    """Whether the example has a label, or a word with one, for the task."""
    target = example["targets"].get(task.name)
    return target is not None and task.count(torch.as_tensor(target)) > 0


def labelled(problem: Problem, split: str) -> list[Any]:
    """The examples of a split with a label of any task."""
    return [e for e in problem.splits[split] if any(is_labelled(task, e) for task in problem.tasks)]


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
