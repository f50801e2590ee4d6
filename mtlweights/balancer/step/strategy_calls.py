"""The only callers of a strategy's method: for the engine, and for the contract suite.

The strategy may change its state freely; it is put back, and the change given with the result.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from torch import Tensor

from ...gradients import task_gradients
from ...gradients.task_gradients import full_precision
from ...strategies import GramStrategy, JacobianStrategy, LossStrategy
from ...strategies.base import Weights
from ..records import Change
from ..state.state import State


def call_loss(
    strategy: LossStrategy, state: State, losses: Tensor, present: list[int]
) -> tuple[Tensor, Tensor, Change]:
    """The objective [], the weights [m], and what the strategy makes of its state."""
    learned = state.learned.params
    objective = partial(strategy.combine, present=state.at(present))
    with full_precision(), state.restoring() as change:
        value, weights, found = task_gradients.differentiate(objective, losses, list(learned.values()))
    change.gradients = dict(zip(learned, found, strict=True))
    return value, weights, change


def call_gram(
    strategy: GramStrategy, state: State, gram: np.ndarray, losses: np.ndarray, present: list[int]
) -> tuple[Weights, Change]:
    """The weights [n], or those of the shared parameters and of the heads, and the change of its state."""
    with full_precision(), state.restoring() as change:
        out = strategy.weights(gram, losses, np.array(present))
    for name, param in state.learned.params.items():
        if param.grad is not None:
            change.gradients[name], param.grad = param.grad, None
    return out, change


def call_jacobian(
    strategy: JacobianStrategy,
    state: State,
    jacobian: Tensor,
    losses: Tensor,
    present: list[int],
    sizes: Mapping[str, int],
) -> tuple[Tensor, Tensor | None, Change]:
    """The direction [P], weights [m] if it has any, and the change of its state.

    ``sizes``: by name the elements of the tensors that the P columns belong to.
    """
    state.rows.give(present, sizes, jacobian)
    with full_precision(), state.restoring() as change:
        out = strategy.direction(jacobian, losses, state.at(present, host=True))
    change.rows = state.rows.take()
    direction, weights = out if isinstance(out, tuple) else (out, None)
    return direction, weights, change
