"""From weights to gradients: out of rows that are at hand, or by weighted backward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from . import factored, fsdp
from .batch import Batch
from .factored import Product, Weight
from .inner_products import BATCH, mix
from .leaves import Leaves
from .ranks import Ranks
from .task_gradients import Own, Row, weighted_pass

Found = list[tuple[Tensor, Tensor]]  # parameters and the step's gradients in them

SMALL = 1 << 15  #: elements up to which launching an operation costs a CPU more than what it does
TINY = 1e-30  #: a weight below this, or above its inverse, is not for float32
CANCELS = 8.0  #: a direction this much shorter than its terms' lengths together is summed in float64


def from_rows(
    leaves: Leaves,
    rows: list[Row],
    trunk: Sequence[Weight],
    heads: Sequence[Weight],
    pieces: dict[int, Tensor],
    wide: bool,
    ranks: Ranks,
    apart: Sequence[int] = (),
) -> Found:
    """For every parameter its weighted rows, or its piece of a direction.

    ``trunk`` weighs the rows in parameters that several tasks reach, ``heads`` in those of one task;
    ``wide`` is as in `combine`. In the parameters ``apart`` that is this ``ranks``' own part of it.
    """
    shared = leaves.shared
    if not wide and not pieces:
        pieces = combine_alike(rows, [k for k, several in enumerate(shared) if several], trunk)
    found: Row = []
    for k in range(len(leaves.params)):
        part = pieces[k] if k in pieces else combine(rows, k, trunk if shared[k] else heads, wide)
        found.append(part)
    if apart:
        ranks.total(found, leaves, apart)
    pairs = zip(leaves.params, found, strict=True)
    return [(param, fsdp.like(param, part)) for param, part in pairs if part is not None]


def by_weighted_passes(ranks: Ranks, batch: Batch, trunk: Sequence[Weight], heads: Sequence[Weight]) -> Found:
    """Without rows: one weighted pass for the trunk, and one into each head.

    The weights are those of this rank's losses, times its share of them.
    """
    leaves, params = batch.leaves, batch.leaves.params
    found: Row = [None] * len(params)

    def one_pass(values: Sequence[Tensor], weights: Sequence[Weight], where: list[int], keep: bool) -> None:
        chosen = [params[k] for k in where]
        part = weighted_pass(values, weights, chosen, batch.factor, retain_graph=keep)
        for k, gradient in zip(where, part, strict=True):
            found[k] = gradient

    tasks = [known.tasks for known in leaves.known]
    for i, value, weight in zip(batch.present, batch.values, heads, strict=True):
        one_pass([value], [weight], [k for k, t in enumerate(tasks) if t == 1 << i], True)
    one_pass(batch.values, trunk, [k for k, t in enumerate(leaves.shared) if t], batch.retain_graph)
    if ranks.number > 1:
        ranks.total(found, leaves, [k for k, tasks in enumerate(leaves.here) if tasks])
    return [(param, g) for param, g in zip(params, found, strict=True) if g is not None]


def combine(rows: Sequence[Row], column: int, weights: Sequence[Weight], wide: bool = False) -> Tensor | None:
    """``sum_i weights[i] * rows[i]`` for one parameter. Takes the gradients out of the rows.

    ``wide``: in float64, for rows that cancel; rounded in float32, each of them leaves an error of its own
    length, and so does its weight.
    The first product allocates: autograd may hand the same tensor to two parameters, or one with
    overlapping memory, so nothing that it returned is written to.
    """
    total: Tensor | None = None
    taken = [row[column] for row in rows]
    for row in rows:
        row[column] = None
    if any(isinstance(gradient, Own) for gradient in taken):
        weights = [w if g is None else w * g.share for g, w in zip(taken, weights, strict=True)]
        taken = [None if g is None else g.gradient for g in taken]
    if any(isinstance(gradient, Product) for gradient in taken):
        return factored.combine(taken, weights, wide)
    some = [(g, w) for g, w in zip(taken, weights, strict=True) if g is not None]
    if wide and some and not any(g.is_sparse for g, _ in some):
        return mix([g for g, _ in some], [w for _, w in some])
    for k, weight in enumerate(weights):
        gradient, taken[k] = taken[k], None
        if gradient is None:
            continue
        if total is None:
            total = gradient * weight
        elif total.is_sparse or gradient.is_sparse or isinstance(weight, Tensor):
            total = total + gradient * weight
        else:
            total.add_(gradient, alpha=weight)
    return total


def combine_alike(rows: Sequence[Row], columns: Sequence[int], weights: Sequence[Weight]) -> dict[int, Any]:
    """`combine` for many parameters by few calls: those on a GPU, and small ones, dense in all rows.

    A part of them at a time, whose gradients are taken out of the rows.
    """
    out: dict[int, Any] = {}
    if any(isinstance(weight, Tensor) for weight in weights):
        return out
    left = [c for c in columns if all(_launch_bound(row[c]) for row in rows)]
    while left:
        these, elements = [], 0
        while left and elements < BATCH:
            these.append(left.pop(0))
            elements += rows[0][these[-1]].numel()
        lists: list[list[Any]] = [[row[c] for c in these] for row in rows]
        total: list[Any] = list(torch._foreach_mul(lists[0], weights[0]))
        for part, weight in zip(lists[1:], weights[1:], strict=True):
            torch._foreach_add_(total, part, alpha=float(weight))
        out |= zip(these, total, strict=True)
        for row in rows:
            for c in these:
                row[c] = None
    return out


def _launch_bound(gradient: object) -> bool:
    if not isinstance(gradient, Tensor) or gradient.is_sparse:
        return False
    device = gradient.device.type
    return device == "cuda" or (device == "cpu" and gradient.numel() <= SMALL)


def too_short(gram: np.ndarray, weights: np.ndarray) -> bool:
    """Whether float32 would lose ``sum_i weights_i row_i``, of rows with this Gramian [n, n].

    The terms cancel, and their rounding errors are those of their own lengths; or a weight is near the ends
    of float32's range, where its product with a row still may be far from them.
    """
    size = np.abs(weights)
    total = size @ np.sqrt(np.diagonal(gram))
    extreme = (size > 1 / TINY) | ((size < TINY) & (size > 0))
    return bool(extreme.any() or weights @ gram @ weights < (total / CANCELS) ** 2)


def as_gradient(param: Tensor, gradient: Tensor) -> Tensor:
    """What a parameter's ``.grad`` takes: of its type and shape, complex where it is."""
    if not param.is_complex():
        return gradient.to(param.dtype)
    parts = gradient.reshape(*param.shape, 2).to(param.real.dtype)
    return torch.view_as_complex(parts.clone())  # a pair that starts at an odd place is no complex number


def accumulate(param: Tensor, gradient: Tensor | None) -> None:
    """Add to ``param.grad``, and call what waits for it, as a backward pass through the leaf would."""
    if gradient is None:
        return
    gradient = as_gradient(param, gradient)
    for hook in list((param._backward_hooks or {}).values()):
        changed = hook(gradient)
        gradient = gradient if changed is None else changed
    if param.grad is None:
        param.grad = gradient
    elif gradient.is_sparse:
        param.grad = param.grad + gradient
    else:
        param.grad.add_(gradient)
    for waiting in (getattr(param, "_post_accumulate_grad_hooks", None) or {}).values():
        waiting(param)
