"""Checks of what a user passes to a Balancer: each error says what was expected, what came, what to do."""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from . import strategies
from .strategies import GramStrategy, LossStrategy, Strategy

OWN = (
    "shared",
    "gradients",
    "features",
    "heads",
    "every",
    "smoothing",
    "accumulation",
    "accumulation_steps",
    "process_group",
    "weight_lr",
    "seed",
)


def did_you_mean(name: object, known: Sequence[str]) -> str:
    """`` (did you mean 'x'?)``, or nothing."""
    close = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def task_names(tasks: Sequence[str]) -> tuple[str, ...]:
    """The task names as a tuple; refuses a bare string, duplicates and none at all."""
    if isinstance(tasks, str) or not all(isinstance(t, str) for t in tasks):
        raise ValueError(f'tasks should be a list of names such as ["ner", "pos"], found {tasks!r}.')
    names = tuple(tasks)
    if not names or len(set(names)) < len(names):
        raise ValueError(f"tasks should be at least one name, each once, found {list(names)!r}.")
    return names


def make_strategy(
    strategy: str | type[Strategy] | Strategy, n_tasks: int, hyperparameters: Mapping[str, Any]
) -> Strategy:
    """An instance for ``n_tasks`` tasks from a name, a class or an instance."""
    if isinstance(strategy, Strategy):
        if hyperparameters:
            raise ValueError(
                f"{', '.join(hyperparameters)}: hyperparameters belong to the constructor of the "
                f"{type(strategy).__name__} instance, or pass the class instead."
            )
        if strategy.n_tasks != n_tasks:
            raise ValueError(f"The strategy was built for {strategy.n_tasks} tasks, but there are {n_tasks}.")
        return strategy
    cls = strategies.get(strategy) if isinstance(strategy, str) else strategy
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise ValueError(f"strategy should be a name, a Strategy class or an instance, found {strategy!r}.")
    accepted = [p.name for p in inspect.signature(cls).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for name in hyperparameters:
        if name not in accepted:
            raise ValueError(
                f"Strategy {cls.__name__} has no hyperparameter {name!r}"
                f"{did_you_mean(name, [*accepted, *OWN])}. It takes: {', '.join(accepted) or 'none'}."
            )
    return cls(n_tasks, **hyperparameters)


def check_heads(heads: str, strategy: Strategy) -> str:
    """Resolve ``"paper"``; refuse to weight heads where a weight may be negative."""
    if heads not in ("paper", "plain", "weighted"):
        raise ValueError(f"heads should be 'paper', 'plain' or 'weighted', found {heads!r}.")
    if heads == "weighted" and strategy.signed_weights:
        raise ValueError(
            f"heads='weighted' with {type(strategy).__name__}: its weights may be negative, so a head would "
            "ascend its own loss. Use heads='plain'."
        )
    return strategy.heads if heads == "paper" else heads


def check_numbers(strategy: Strategy, every: int, smoothing: float, weight_lr: float) -> None:
    """Ranges of the Balancer's own arguments, and which strategies they fit."""
    if not (isinstance(every, int) and every >= 1):
        raise ValueError(f"every should be a whole number of optimizer steps, at least 1, found {every!r}.")
    if not 0 <= smoothing < 1:
        raise ValueError(f"smoothing should be in [0, 1), found {smoothing!r}.")
    if (every > 1 or smoothing) and (not isinstance(strategy, GramStrategy) or strategy.batches > 1):
        kind = {LossStrategy: "has no costly weights to save", GramStrategy: "needs its rows in every step"}
        reason = next((why for base, why in kind.items() if isinstance(strategy, base)), "gives no weights")
        raise ValueError(
            f"every= and smoothing= are for Gramian strategies; {type(strategy).__name__} {reason}."
        )
    if not weight_lr > 0:
        raise ValueError(f"weight_lr should be positive, found {weight_lr!r}.")


def check_gradients(
    gradients: str, features: nn.Module | None, strategy: Strategy, accumulation: str
) -> None:
    """How gradients are measured, and by which strategies they can be."""
    known = ("auto", "rows", "features", "gramian")
    if gradients not in known:
        raise ValueError(
            f"gradients should be one of {', '.join(known)}, found {gradients!r}"
            f"{did_you_mean(gradients, known)}."
        )
    if gradients in ("features", "gramian") and not isinstance(strategy, GramStrategy):
        kind = "their losses alone" if isinstance(strategy, LossStrategy) else "whole gradients"
        raise ValueError(
            f"gradients={gradients!r} is for Gramian strategies; {type(strategy).__name__} weighs tasks by "
            f"{kind}: leave gradients='auto'."
        )
    several = isinstance(strategy, GramStrategy) and (strategy.batches > 1 or strategy.validation_rows)
    if gradients == "features" and (accumulation == "window" or several):
        raise ValueError(
            "gradients='features' needs the graph of the whole step at once: it goes with neither "
            "accumulation='window' nor a strategy of several batches or of validation gradients."
        )
    if features is not None and gradients != "features":
        raise ValueError(f"features= belongs to gradients='features', found gradients={gradients!r}.")
    if features is not None and not isinstance(features, nn.Module):
        raise ValueError(f"features should be a module of the model, found {type(features).__name__}.")


def check_accumulation(accumulation: str, steps: int | None, every: int, strategy: Strategy) -> None:
    """The kind of accumulation, and what goes with it."""
    batches = strategy.batches if isinstance(strategy, GramStrategy) else 1
    if accumulation not in ("microbatch", "window"):
        raise ValueError(f"accumulation should be 'microbatch' or 'window', found {accumulation!r}.")
    if steps is not None and not (isinstance(steps, int) and steps >= 1):
        raise ValueError(f"accumulation_steps should be a whole number of at least 1, found {steps!r}.")
    if batches > 1 and getattr(strategy, "validation_rows", False):
        raise ValueError(
            f"{type(strategy).__name__} asks for {batches} batches and for validation rows: a strategy gets "
            "one or the other."
        )
    if steps is not None and steps % batches:
        raise ValueError(
            f"{type(strategy).__name__} weighs with {batches} independent batches per optimizer step: "
            f"accumulation_steps should be a multiple of {batches}, found {steps}."
        )
    if steps is not None and accumulation != "window" and batches == 1:
        raise ValueError("accumulation_steps= belongs to accumulation='window'.")
    if every > 1 and accumulation == "window":
        raise ValueError(
            "every= saves nothing with accumulation='window', which needs all rows: use one of them."
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


def read_losses(
    tasks: Sequence[str], losses: Mapping[str, Tensor], counts: Mapping[str, Any] | None
) -> tuple[list[int], list[Tensor], list[Any]]:
    """Indices of the tasks at hand in the balancer's order, their losses and counts."""
    if not isinstance(losses, Mapping):
        raise ValueError(f"losses should be a dict of task -> scalar tensor, found {type(losses).__name__}.")
    _check_names([*losses, *(counts or {})], tasks)
    counts = counts or {}
    present = [i for i, t in enumerate(tasks) if t in losses and not _zero(counts.get(t, 1))]
    if not present:
        raise ValueError(
            f"No loss to balance: give at least one of {', '.join(tasks)}, with a count above 0."
        )
    for i in present:
        loss = losses[tasks[i]]
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            found = f"shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(
                f"The loss of {tasks[i]!r} should be a scalar tensor, found {found}: take its mean."
            )
    return present, [losses[tasks[i]] for i in present], [counts.get(tasks[i], 1) for i in present]


def _zero(count: Any) -> bool:
    """A count known on the host to be 0; a tensor is never read here."""
    return not isinstance(count, Tensor) and count == 0


def read_scores(tasks: Sequence[str], validation: Mapping[str, float]) -> np.ndarray:
    """Validation scores [T] in the balancer's order, NaN where none was given."""
    _check_names(list(validation), tasks)
    return np.array([float(validation.get(task, np.nan)) for task in tasks])


def _check_names(keys: Sequence[str], tasks: Sequence[str]) -> None:
    for key in keys:
        if key not in tasks:
            known = ", ".join(tasks)
            raise ValueError(
                f"{key!r} is not one of the balancer's tasks{did_you_mean(key, tasks)}. Tasks: {known}."
            )
