"""Checks of what a Balancer is made with: each error says what was expected, what came, what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, KeysView, Sequence, Set
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from ..gradients import graph
from ..strategies import JacobianStrategy, Strategy
from ..strategies.hyperparameters import shown


def task_names(tasks: Iterable[str]) -> tuple[str, ...]:
    """The task names as a tuple; refuses a bare string, a set, blanks, duplicates and none at all."""
    if isinstance(tasks, Set) and not isinstance(tasks, KeysView):
        raise ValueError(
            f"tasks should be a list of names: the order of {shown(tasks)}, a {type(tasks).__name__}, is "
            "another in every process."
        )
    try:
        names = None if isinstance(tasks, (str, bytes)) else tuple(tasks)
    except TypeError:
        names = None
    if names is None or not all(isinstance(name, str) for name in names):
        raise ValueError(f'tasks should be a list of names such as ["ner", "pos"], found {shown(tasks)}.')
    if not names or len(set(names)) < len(names) or not all(name.strip() for name in names):
        raise ValueError(
            f"tasks should be at least one name, each once, none blank, found {shown([*names])}."
        )
    return names


def check_shared(shared: Any) -> Any:
    """``shared`` with parameters and modules as a list."""
    if isinstance(shared, str) and shared == "auto":
        return shared
    named = (
        "shared should be 'auto', parameters, modules, or a function of a parameter's name that says whether "
        "it is one"
    )
    if isinstance(shared, (Tensor, nn.Module)):
        shared = [shared]
    if isinstance(shared, (str, bytes, type)) or not (callable(shared) or isinstance(shared, Iterable)):
        raise ValueError(f"{named}, found {shown(shared)}.")
    if callable(shared):
        return shared
    try:
        parts = list(shared)
    except TypeError:
        raise ValueError(f"{named}, found {shown(shared)}.") from None
    for part in parts:
        if not isinstance(part, (Tensor, nn.Module)):
            raise ValueError(f"{named}, found {shown(part)} among them.")
        if isinstance(part, Tensor) and not (
            isinstance(part, nn.Parameter) or (part.is_leaf and part.requires_grad)
        ):
            raise ValueError(f"{named}, found a tensor of shape {tuple(part.shape)} that is no parameter.")
    if not any(isinstance(part, Tensor) or any(True for _ in part.parameters()) for part in parts):
        raise ValueError(f"{named}, found no parameter.")
    return parts


def check_sharded(strategy: Strategy, gradients: str) -> None:
    """Raise ValueError for what shards of gradients cannot do."""
    what = f"gradients={gradients!r}"
    if isinstance(strategy, JacobianStrategy) or "validate" in strategy.hooks():
        what = f"{type(strategy).__name__}, which needs more than a Gramian of the task gradients,"
    elif gradients != "features":
        return
    raise ValueError(f"{what} does not go with FSDP2: use DDP or another strategy.")


def check_replays(values: Sequence[Tensor], strategy: Strategy, below: Tensor | None = None) -> None:
    """Raise ValueError if passes of two losses, down to ``below``, would go through one captured CUDA graph.

    It may go backward once for each forward: its second backward finds the activations written over.
    """
    stop = None if below is None else below.grad_fn
    captured = [node for value in values for node in graph.captured(value, stop)]
    if len(set(captured)) < len(captured):
        raise ValueError(
            "A model captured by torch.cuda.make_graphed_callables can go backward once per forward, and "
            f"{type(strategy).__name__} needs a pass per task: use gradients='features' at its output, a "
            "loss-based strategy, or no capture of what the tasks share."
        )


def warn_of_optimizer(strategy: Strategy, optimizer: Optimizer) -> None:
    """A method with an Adam of its own inside another adaptive optimizer is not what its paper is about."""
    plain = isinstance(optimizer, SGD) and not any(group["momentum"] for group in optimizer.param_groups)
    if strategy.replaces_optimizer and not plain:
        warnings.warn(
            f"{type(strategy).__name__} scales its own updates: train with torch.optim.SGD without momentum, "
            f"not {type(optimizer).__name__}, to have the method of its paper.",
            stacklevel=3,
        )


def check_model(model: nn.Module | None) -> nn.Module | None:
    """The model without its DDP or torch.compile wrapper; refuses wrappers that cannot work."""
    if model is not None and not isinstance(model, nn.Module):
        raise ValueError(f"model should be a torch.nn.Module, found {type(model).__name__}.")
    if isinstance(model, nn.DataParallel):
        raise ValueError(
            "nn.DataParallel calls the balancer once per replica: use DistributedDataParallel, "
            "one process per device."
        )
    if isinstance(model, DistributedDataParallel):
        if model.static_graph:
            raise ValueError(
                "DistributedDataParallel(static_graph=True) cannot be balanced: leave static_graph off."
            )
        model = model.module
    inner = getattr(model, "_orig_mod", None)
    return check_model(inner) if isinstance(inner, nn.Module) else model
