"""Checks of what a call brings: losses, counts, scores. Nothing is touched before they have passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..specs import did_you_mean
from ..strategies.hyperparameters import is_number, is_whole, shown

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass
class Losses:
    """The losses of one call, m tasks present, in the balancer's order."""

    present: list[int]
    values: list[Tensor]  #: [], m of them
    counts: list[Any]  #: items each is the mean of: numbers, or tensors []
    constants: list[Tensor]  #: losses [] without a graph, of tasks that take no part

    def plain_sum(self) -> Tensor:
        """The sum [] of all losses, constants included, with its graph."""
        device = self.values[0].device
        return torch.stack([value.to(device) for value in (*self.values, *self.constants)]).sum()

    def only(self, tasks: Sequence[int]) -> Losses:
        """Those of the tasks with these indices."""
        kept = [k for k, i in enumerate(self.present) if i in tasks]
        present, values = [self.present[k] for k in kept], [self.values[k] for k in kept]
        return Losses(present, values, [self.counts[k] for k in kept], self.constants)

    def check_moves(self, kind: str) -> None:
        """Raise ValueError if no loss has a graph."""
        if not any(value.requires_grad for value in self.values):
            raise ValueError(
                f"No {kind} requires a gradient: the model is frozen, or the losses were detached."
            )


def read_losses(
    tasks: Sequence[str], losses: Mapping[str, Tensor], counts: Mapping[str, Any] | None
) -> Losses:
    """The losses of the tasks at hand.

    Where others require a gradient, a loss that does not is a placeholder: its task is missing from this
    batch, as if it were left out, and no state of its moves.

    Raises:
        ValueError: an unknown task, none at hand, a loss that is not a floating-point scalar, a count that is
            not a number of items.
    """
    if not isinstance(losses, Mapping):
        raise ValueError(f"losses should be a dict of task -> scalar tensor, found {type(losses).__name__}.")
    if not (counts is None or isinstance(counts, Mapping)):
        raise ValueError(f"counts should be a dict of task -> number of items, found {shown(counts)}.")
    counts = counts or {}
    _check_names([*losses, *counts], tasks)
    numbers = {task: _count(task, count) for task, count in counts.items()}
    given = [i for i, task in enumerate(tasks) if task in losses]
    values = {i: _loss(tasks[i], losses[tasks[i]]) for i in given}
    if counts:
        given = [i for i in given if numbers.get(tasks[i], 1) is not None]
    if not given:
        raise ValueError(
            f"No loss to balance: give at least one of {', '.join(tasks)}, with a count above 0."
        )
    present = [i for i in given if values[i].requires_grad] or given
    constants = [] if len(present) == len(given) else [values[i] for i in given if i not in present]
    return Losses(
        present, [values[i] for i in present], [numbers.get(tasks[i], 1) for i in present], constants
    )


def _loss(task: str, loss: Any) -> Tensor:
    """The loss; ValueError unless it is a floating-point scalar, on a device that has values."""
    if not isinstance(loss, Tensor):
        raise ValueError(
            f"The loss of {task!r} should be a scalar tensor, found {shown(loss)}: where a task has "
            "none, leave it out of losses."
        )
    if loss.dtype in FLOATS and loss.dim() == 0 and loss.layout is torch.strided and not loss.is_meta:
        return loss
    found, cure = "one on the meta device, without a value", "move the model to a real device"
    if loss.is_nested or loss.layout != torch.strided:
        found, cure = "a nested or sparse tensor", "give a dense scalar"
    elif loss.dim() != 0:
        found, cure = f"shape {tuple(loss.shape)}", "take its mean"
    elif loss.is_complex():
        found, cure = f"{loss.dtype}", "take its real part or its absolute value"
    elif loss.dtype not in FLOATS:
        found, cure = f"{loss.dtype}", "compute it in float32"
    raise ValueError(f"The loss of {task!r} should be a scalar tensor, found {found}: {cure}.")


def _count(task: str, count: Any) -> Any:
    """A count as a number or a tensor []; None if it is the number 0. A tensor is read on the CPU alone."""
    if isinstance(count, Tensor):
        fine = count.dim() == 0 and count.layout == torch.strided and not count.is_complex()
        fine = fine and count.dtype is not torch.bool and count.device.type != "meta"
        if (
            fine
            and type(count) is Tensor
            and count.device.type == "cpu"
            and not torch.compiler.is_compiling()
        ):
            fine = is_number(count.item()) and count.item() >= 0
        number: Any = count.detach() if fine else count
    else:
        fine = is_number(count) and 0 <= count < 2**53
        number = (int(count) if is_whole(count) else float(count)) if fine else count
    if not fine:
        raise ValueError(
            f"The count of {task!r} should be its number of items, at least 0, found {shown(count)}: where a "
            "task has none, leave it out."
        )
    return number if isinstance(number, Tensor) or number > 0 else None


def read_parts(tasks: Sequence[str], parts: Any) -> list[tuple[Mapping[str, Tensor], Mapping[str, Any]]]:
    """The losses and counts of several micro-batches, checked one by one.

    Raises:
        ValueError: it is no list of (losses, counts), or one of them is refused by :func:`read_losses`.
    """
    wanted = "task -> loss, or a list of (task -> loss, task -> count)"
    if isinstance(parts, (str, Tensor)) or not isinstance(parts, Sequence) or not parts:
        raise ValueError(f"The closure should return {wanted}, found {shown(parts)}.")
    out = []
    for part in parts:
        if not (isinstance(part, Sequence) and len(part) == 2):
            raise ValueError(f"The closure should return {wanted}, found {shown(part)} in the list.")
        losses, counts = part
        read_losses(tasks, losses, counts)
        out.append((losses, counts or {}))
    return out


def read_scores(tasks: Sequence[str], validation: Mapping[str, float]) -> np.ndarray:
    """Validation scores [T] in the balancer's order, NaN where none was given, or NaN was.

    Raises:
        ValueError: no dict, an unknown task, a score that is not a number, an infinite one.
    """
    if not isinstance(validation, Mapping):
        raise ValueError(f"validation should be a dict of task -> score, found {shown(validation)}.")
    _check_names(list(validation), tasks)
    return np.array([_score(task, validation.get(task, np.nan)) for task in tasks])


def _score(task: str, score: Any) -> float:
    value = score
    if isinstance(value, Tensor) and value.dim() == 0 and value.device.type != "meta":
        value = value.item()
    if isinstance(value, (float, np.floating)) and value != value:
        return float("nan")
    if not is_number(value):
        raise ValueError(
            f"The validation score of {task!r} should be a finite number, found {shown(score)}: where a task "
            "has none, leave it out."
        )
    return float(value)


def check_gradient(gradient: Any) -> None:
    """What backward gets: None, or a factor [].

    Raises:
        ValueError: anything else.
    """
    if gradient is None:
        return
    fine = isinstance(gradient, Tensor) and gradient.dim() == 0 and gradient.layout == torch.strided
    if not (fine and gradient.dtype in FLOATS and gradient.device.type != "meta"):
        raise ValueError(
            f"gradient should be a floating-point scalar such as torch.ones(()), found {shown(gradient)}."
        )


def check_features(features: Any, mode: str) -> None:
    """The shared representation of one call.

    Raises:
        ValueError: it is no tensor with a graph, or the balancer does not measure there.
    """
    if features is None:
        return
    if mode != "features":
        raise ValueError(f"features= belongs to gradients='features', this balancer has gradients={mode!r}.")
    if not (isinstance(features, Tensor) and features.requires_grad):
        raise ValueError(
            "features should be the tensor that all heads start from, with its graph, found "
            f"{'one without a graph' if isinstance(features, Tensor) else shown(features)}."
        )


def check_closure(closure: Any) -> None:
    """Raise ValueError unless it can be called."""
    if not callable(closure):
        raise ValueError(f"closure should be a function that returns task -> loss, found {shown(closure)}.")


def _check_names(keys: Sequence[Any], tasks: Sequence[str]) -> None:
    for key in keys:
        if key not in tasks:
            known = ", ".join(tasks)
            raise ValueError(
                f"{shown(key)} is not one of the balancer's tasks{did_you_mean(key, tasks)}. Tasks: {known}."
            )
