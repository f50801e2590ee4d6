"""From weights to gradients: out of rows that are at hand, or by weighted backward passes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ...gradients import fsdp, task_gradients
from ...gradients.batch import Batch
from ...gradients.factored import Weight
from ...gradients.leaves import Leaves
from ...gradients.ranks import Ranks
from ...gradients.task_gradients import Found, Row
from ..records import Step


def from_rows(leaves: Leaves, step: Step, rows: list[Row], pieces: dict[int, Tensor]) -> Found:
    """For every parameter its weighted rows, or its piece of a direction."""
    shared = leaves.shared
    trunk, heads = (_items(weights, len(rows)) for weights in step.per_row)
    if not step.wide and not pieces:
        pieces = task_gradients.combine_alike(rows, [k for k, several in enumerate(shared) if several], trunk)
    found: Found = []
    for k, param in enumerate(leaves.params):
        weights = trunk if shared[k] else heads
        part = pieces[k] if k in pieces else task_gradients.combine(rows, k, weights, step.wide)
        if part is not None:
            found.append((param, fsdp.like(param, part)))
    return found


def by_weighted_passes(ranks: Ranks, step: Step, batch: Batch) -> Found:
    """Without rows: one weighted pass for the trunk, and one into each head."""
    leaves, params = batch.leaves, batch.leaves.params
    one: list[Weight] = [1.0] * len(batch.present)
    part = step.shares(batch.present, batch.counts) if ranks.number > 1 else one
    trunk, heads = (_items(weights, len(step.present)) for weights in step.per_row)
    at = [step.present.index(i) for i in batch.present]
    found: Row = [None] * len(params)

    def one_pass(values: Sequence[Tensor], weights: Sequence[Weight], where: list[int], keep: bool) -> None:
        chosen = [params[k] for k in where]
        part = task_gradients.weighted_pass(values, weights, chosen, batch.factor, retain_graph=keep)
        for k, gradient in zip(where, part, strict=True):
            found[k] = gradient

    tasks = [known.tasks for known in leaves.known]
    for i, place, value, share in zip(batch.present, at, batch.values, part, strict=True):
        one_pass([value], [heads[place] * share], [k for k, t in enumerate(tasks) if t == 1 << i], True)
    weights = [trunk[place] * share for place, share in zip(at, part, strict=True)]
    one_pass(batch.values, weights, [k for k, t in enumerate(leaves.shared) if t], batch.retain_graph)
    if ranks.number > 1:
        ranks.total(found, leaves)
    return [(param, g) for param, g in zip(params, found, strict=True) if g is not None]


def _items(weights: Tensor | np.ndarray | None, m: int) -> Sequence[Weight]:
    """One weight per task: floats, or 0-dim tensors left on their device; None is all ones."""
    if weights is None:
        return [1.0] * m
    return weights.unbind() if isinstance(weights, Tensor) else weights.tolist()
