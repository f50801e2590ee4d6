"""Weights for each parameter group, from its own Gramian: the step of ``Balancer(groups=)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...gradients import task_gradients, write_grad
from ...gradients.switches import full_precision
from ...strategies import GramStrategy
from ...strategies.base import Weights
from ..records import Change, Measured
from .groups import Grouped
from .normalise import divisors, undone

if TYPE_CHECKING:
    from .weights import Weigher


class Part(NamedTuple):
    """What one group's strategy sees, of the n rows those of the tasks that reach the group."""

    group: int
    columns: list[int]  #: places of its leaves
    rows: np.ndarray  #: their numbers
    gram: np.ndarray  #: of them
    losses: np.ndarray
    present: np.ndarray  #: their tasks


def solve(weigher: Weigher, found: Measured) -> dict[int, Tensor]:
    """Ask each group's strategy; the weighted gradients of shared parameters by place of the leaf.

    A step's weights, as users read them and as parameters of one task get them, are means over the groups
    that a task reaches.
    """
    step, groups = found.step, weigher.groups
    assert groups is not None
    columns = groups.columns(found.leaves, found.at or [])
    grams, losses = _on_host(weigher, found, list(columns.values()))
    n = grams.shape[1]
    step.gram = grams.sum(0)[: len(step.present), : len(step.present)]
    if not (np.isfinite(grams).all() and np.isfinite(losses).all()):
        step.make_non_finite(n)
        return {}
    weigher.refuse_negative(step, losses)
    parts = _parts(columns, grams, losses, found, weigher.strategy.batches)
    out, step.change = call_groups(weigher, parts)
    kept = _smoothed(weigher, parts, [weigher.pair(weights) for weights in out], step.change)
    every = np.full((2, len(parts), n), np.nan)  # [trunk or head, group, row], NaN where it has no such row
    for k, (part, weights) in enumerate(zip(parts, kept, strict=True)):
        if not np.isfinite(weights).all():
            step.make_non_finite(n)
            return {}
        every[:, k, part.rows] = weights
    one = np.full(n, 1 / weigher.strategy.batches)
    trunk, heads = (_mean(weights, one) for weights in every)
    step.per_row = trunk, heads
    step.by_group = {groups.names[part.group]: w for part, w in zip(parts, every[0], strict=True)}
    return _weighted(found, parts, every[0])


def _on_host(weigher: Weigher, found: Measured, columns: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Gramians [g, n, n] without the factor, and losses [m]: the step's one copy."""
    each = [task_gradients.gramian(found.rows, at) for at in columns]
    grams = torch.stack([gram.to(each[0].device) for gram in each])
    grams = grams if found.add is None else found.add(grams)
    host = weigher.state.host(grams.flatten(), found.step.losses, found.factor)
    with np.errstate(all="ignore"):
        return host[: grams.numel()].reshape(grams.shape) / host[-1] / host[-1], host[grams.numel() : -1]


def _parts(
    columns: dict[int, list[int]], grams: np.ndarray, losses: np.ndarray, found: Measured, batches: int
) -> list[Part]:
    """What the strategies see; a group that no task at hand reaches is left alone."""
    present, known, out = np.array(found.step.present), found.leaves.known, []
    for (group, at), gram in zip(columns.items(), grams, strict=True):
        reach = 0
        for c in at:
            reach |= known[c].tasks
        here = np.array([k for k, i in enumerate(found.step.present) if reach >> i & 1], dtype=int)
        rows = np.concatenate([here + b * len(present) for b in range(batches)])
        if len(here):
            out.append(Part(group, at, rows, gram[rows[:, None], rows], losses[here], present[here]))
    return out


def call_groups(weigher: Weigher, parts: list[Part]) -> tuple[list[Weights], Change]:
    """The weights of each part, for the gradients as they are, and the change of all states."""
    strategies, kind, out = weigher.state.strategy, weigher.options.normalise, list[Weights]()
    assert isinstance(strategies, Grouped)
    with full_precision(), weigher.state.restoring() as change, np.errstate(all="ignore"):
        for part in parts:
            strategy = strategies.each()[part.group]
            assert isinstance(strategy, GramStrategy)
            by = np.ones(len(part.rows)) if kind is None else divisors(kind, part.gram, part.losses)
            found = strategy.weights(part.gram / by / by[:, None], part.losses, part.present)
            out.append(undone(found, by))
    return out, change


def _smoothed(
    weigher: Weigher, parts: list[Part], weights: list[np.ndarray], change: Change
) -> list[np.ndarray]:
    """The weights [2, n] of each part, mixed with its last ones."""
    if not weigher.options.smoothing:
        return weights
    change.held, out = weigher.state.held.clone(), []
    for part, own in zip(parts, weights, strict=True):
        at = (part.group, slice(None), torch.from_numpy(part.present))
        out.append(weigher.mixed(own, weigher.state.held[at].numpy()))
        change.held[at] = torch.from_numpy(out[-1])
    return out


def _mean(weights: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    """Over the groups [g, n] that have a row."""
    some = ~np.isnan(weights)
    total = np.where(some, weights, 0.0).sum(0)
    return np.where(some.any(0), total / np.maximum(some.sum(0), 1), otherwise)


def _weighted(found: Measured, parts: list[Part], weights: np.ndarray) -> dict[int, Tensor]:
    """The groups' gradients, by place; weights [g, n]."""
    pieces, shared = dict[int, Tensor](), found.leaves.shared
    for part, own in zip(parts, weights, strict=True):
        wide = write_grad.too_short(part.gram, own[part.rows])
        for c in part.columns:
            if shared[c]:
                gradient = write_grad.combine(found.rows, c, np.nan_to_num(own).tolist(), wide)
                pieces |= {} if gradient is None else {c: gradient}
    return pieces
