"""Checks of what a Balancer is made with: each error says what was expected, what came, what to do."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, KeysView, Sequence, Set
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer

from ..gradients import graph
from ..specs import did_you_mean
from ..strategies import GramStrategy, JacobianStrategy, LossStrategy, Strategy
from ..strategies.hyperparameters import MOST, is_number, is_whole, shown


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


def check_seed(seed: int) -> int:
    """The seed as an int; refuses all but whole numbers from 0 to 2^63 - 1."""
    if not (is_whole(seed) and 0 <= seed < 2**63):
        raise ValueError(f"seed should be a whole number of at least 0, found {shown(seed)}.")
    return int(seed)


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


def check_heads(heads: str, strategy: Strategy) -> str:
    """Resolve ``"paper"``; refuse to weight heads where a weight may be negative."""
    if not (isinstance(heads, str) and heads in ("paper", "plain", "weighted")):
        raise ValueError(f"heads should be 'paper', 'plain' or 'weighted', found {shown(heads)}.")
    if heads == "weighted" and strategy.signed_weights:
        raise ValueError(
            f"heads='weighted' with {type(strategy).__name__}: its weights may be negative, so a head would "
            "ascend its own loss. Use heads='plain'."
        )
    return strategy.heads if heads == "paper" else heads


def check_numbers(strategy: Strategy, every: int, smoothing: float, weight_lr: float) -> None:
    """Ranges of the Balancer's own arguments, and which strategies they fit."""
    if not (is_whole(every) and 1 <= every < MOST):
        raise ValueError(
            f"every should be a whole number of optimizer steps, at least 1, found {shown(every)}."
        )
    if not (is_number(smoothing) and 0 <= smoothing < 1):
        raise ValueError(f"smoothing should be in [0, 1), found {shown(smoothing)}.")
    if (every > 1 or smoothing) and (not isinstance(strategy, GramStrategy) or strategy.batches > 1):
        kind = {LossStrategy: "has no costly weights to save", GramStrategy: "needs its rows in every step"}
        reason = next((why for base, why in kind.items() if isinstance(strategy, base)), "gives no weights")
        raise ValueError(
            f"every= and smoothing= are for Gramian strategies; {type(strategy).__name__} {reason}."
        )
    if not (is_number(weight_lr) and weight_lr > 0):
        raise ValueError(f"weight_lr should be positive and finite, found {shown(weight_lr)}.")


def check_normalise(normalise: str | None, strategy: Strategy) -> None:
    """How gradients are normalised, and for which strategies they can be."""
    if normalise is None:
        return
    if not (isinstance(normalise, str) and normalise in ("l2", "loss")):
        raise ValueError(f"normalise should be None, 'l2' or 'loss', found {shown(normalise)}.")
    name = type(strategy).__name__
    if not isinstance(strategy, GramStrategy):
        kind = "looks at losses alone" if isinstance(strategy, LossStrategy) else "has a way of its own"
        raise ValueError(f"normalise= is for Gramian strategies; {name} {kind}: leave it out.")
    if strategy.batches > 1 or "validate" in strategy.hooks():
        more = "several batches" if strategy.batches > 1 else "validation gradients"
        raise ValueError(f"normalise= is for one gradient per task; {name} takes those of {more}.")


def check_gradients(
    gradients: str, features: nn.Module | None, strategy: Strategy, accumulation: str
) -> None:
    """How gradients are measured, and by which strategies they can be."""
    known = ("auto", "rows", "features", "gramian")
    if not (isinstance(gradients, str) and gradients in known):
        raise ValueError(
            f"gradients should be one of {', '.join(known)}, found {shown(gradients)}"
            f"{did_you_mean(gradients, known)}."
        )
    if gradients in ("features", "gramian") and not isinstance(strategy, GramStrategy):
        kind = "their losses alone" if isinstance(strategy, LossStrategy) else "whole gradients"
        raise ValueError(
            f"gradients={gradients!r} is for Gramian strategies; {type(strategy).__name__} weighs tasks by "
            f"{kind}: leave gradients='auto'."
        )
    several = strategy.batches > 1 or "validate" in strategy.hooks()
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
    batches = strategy.batches
    if not (isinstance(accumulation, str) and accumulation in ("microbatch", "window")):
        raise ValueError(f"accumulation should be 'microbatch' or 'window', found {shown(accumulation)}.")
    if steps is not None and not (is_whole(steps) and 1 <= steps < MOST):
        raise ValueError(f"accumulation_steps should be a whole number of at least 1, found {shown(steps)}.")
    if batches > 1 and "validate" in strategy.hooks():
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
