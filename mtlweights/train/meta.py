"""Meta learning over tasks: weights from which a new task is learnt out of a few examples."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.optim import Optimizer

from ..specs import suggest

Weights = Mapping[str, Tensor]
#: mean loss [] of a batch, under the weights that its first argument, a stand-in for the model, computes with
Loss = Callable[[Callable[..., Any], Any], Tensor]
METHODS = ("reptile", "fomaml")


def meta_step(
    model: nn.Module,
    loss: Loss,
    episodes: Sequence[tuple[Any, Any]],
    optimizer: Optimizer,
    *,
    method: str = "reptile",
    steps: int = 5,
    lr: float = 0.01,
    together: bool = True,
) -> float:
    """One step towards weights that learn fast: adapt to each episode's task, then move the model.

    ``reptile``: the gradient is the mean over tasks of (start - adapted) / (steps lr), after ``steps`` of
    plain gradient descent on the support set (Nichol, Achiam and Schulman, "On First-Order Meta-Learning
    Algorithms", 2018, algorithm 2 and section 4, which divide by the inner rate). With one step it is joint
    training. ``fomaml``: the mean of the query sets' gradients at the adapted weights (Finn, Abbeel and
    Levine, "Model-Agnostic Meta-Learning", ICML 2017, section 5.2, first-order). Buffers, such as running
    means, are read and not learnt: batch normalisation wants evaluation mode, or torch refuses it.

    Args:
        loss: ``loss(run, batch)``; it calls ``run(...)`` where it would call the model.
        episodes: (support, query) of each task: batches as ``loss`` takes them. Reptile reads no query.
        optimizer: of the model's parameters; its step is taken.
        steps, lr: of the descent on a support set.
        together: All tasks at once, by `torch.func.vmap`. Their batches are trees of tensors of the same
            shapes; what vmap cannot follow, an LSTM on packed sequences say, wants False.

    Returns:
        The mean loss on the query sets at the adapted weights, for ``reptile`` that on the support sets.

    Raises:
        ValueError: another method, no episode, ``steps`` below 1.
    """
    if method not in METHODS:
        raise ValueError(f"there is no method {method!r}; {suggest(method, METHODS)}")
    if not episodes or steps < 1:
        raise ValueError(f"expected episodes and steps from 1, found {len(episodes)} and {steps}.")
    start = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    run = _runner(model)

    def of_one(support: Any, query: Any) -> tuple[dict[str, Tensor], Tensor]:
        end = _descend(run, loss, start, support, steps, lr)
        if method == "reptile":
            return {k: (start[k] - end[k]) / (steps * lr) for k in start}, loss(run(end), support)
        slope, value = torch.func.grad_and_value(lambda weights: loss(run(weights), query))(end)
        return slope, value

    if together:
        stacked = [_stack([episode[k] for episode in episodes]) for k in (0, 1)]
        rows, values = vmap(of_one, randomness="different")(*stacked)
        rows = {name: row.mean(0) for name, row in rows.items()}
    else:
        found = [of_one(*episode) for episode in episodes]
        values = torch.stack([value for _, value in found])
        rows = {name: torch.stack([row[name] for row, _ in found]).mean(0) for name in start}
    for name, parameter in model.named_parameters():
        if name in rows:
            parameter.grad = rows[name].detach().clone()
    optimizer.step()
    optimizer.zero_grad()
    return float(values.detach().mean())


def adapt(model: nn.Module, loss: Loss, support: Any, *, steps: int = 5, lr: float = 0.01) -> nn.Module:
    """A copy of the model after so many steps of gradient descent on a new task's few examples."""
    run = _runner(model)
    start = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
    end = _descend(run, loss, start, support, steps, lr)
    found = copy.deepcopy(model)
    with torch.no_grad():
        for name, parameter in found.named_parameters():
            if name in end:
                parameter.copy_(end[name])
    return found


def _runner(model: nn.Module) -> Callable[[Weights], Callable[..., Any]]:
    """From weights to what stands for the model under them."""
    frozen = {k: v.detach() for k, v in model.named_parameters() if not v.requires_grad}
    fixed = {**frozen, **{name: value.clone() for name, value in model.named_buffers()}}

    def run(weights: Weights) -> Callable[..., Any]:
        return lambda *inputs, **named: functional_call(model, {**fixed, **weights}, inputs, named)

    return run


def _descend(
    run: Callable[[Weights], Callable[..., Any]],
    loss: Loss,
    start: Weights,
    batch: Any,
    steps: int,
    lr: float,
) -> dict[str, Tensor]:
    slope = grad(lambda weights: loss(run(weights), batch))
    weights = dict(start)
    for _ in range(steps):
        rows = slope(weights)
        weights = {name: value - lr * rows[name] for name, value in weights.items()}
    return weights


def _stack(batches: Sequence[Any]) -> Any:
    """Trees of tensors as one tree, a dimension for the task first."""
    from torch.utils import _pytree as pytree

    leaves, shape = zip(*(pytree.tree_flatten(batch) for batch in batches), strict=True)
    return pytree.tree_unflatten([torch.stack(same) for same in zip(*leaves, strict=True)], shape[0])
