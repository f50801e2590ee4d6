"""The records of one backward: what was measured, what it found, and what it asks of the state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..gradients.leaves import Leaves
from ..gradients.task_gradients import Row

Weights = Tensor | np.ndarray | None
TRUE = torch.tensor(True)  # never changed in place


@dataclass
class Change:
    """What backwards ask of the state, which the optimizer's step makes so."""

    ok: Tensor = TRUE  #: [], everything was finite
    buffers: dict[str, Tensor] = field(default_factory=dict)  #: what the strategy's become
    gradients: dict[str, Tensor] = field(default_factory=dict)  #: of its learned parameters
    held: Tensor | None = None  #: weights [2, T] to use again or to smooth with
    rows: dict[str, Tensor] = field(default_factory=dict)  #: state of a JacobianStrategy, [m, P] each
    present: list[int] = field(default_factory=list)  #: the tasks of ``rows``
    #: backwards that had each task [T]
    seen: np.ndarray = field(default_factory=partial(np.zeros, (), np.int64))
    sums: Tensor | None = None  #: losses times counts, and counts [2, T]


@dataclass
class Step:
    """What a backward found; m tasks present on any rank, n = k m rows of a strategy's k batches."""

    present: list[int]
    losses: Tensor  #: [m]
    counts: Tensor | list[Any]  #: [m], items each loss is the mean of, numbers or tensors
    #: weights [n] of the shared parameters and of the heads; None: all 1
    per_row: tuple[Weights, Weights] = (None, None)
    gram: np.ndarray | None = None  #: [m, m], of the unscaled rows
    by_group: dict[str, np.ndarray] = field(
        default_factory=dict
    )  #: weights [n] of parameter groups, NaN: none
    wide: bool = False  #: float32 is too short for the weighted rows' sum
    change: Change = field(default_factory=Change)

    def items(self) -> Tensor:
        """The counts [m] on the losses' device, without waiting for it."""
        if isinstance(self.counts, Tensor):
            return self.counts
        device, dtype = self.losses.device, self.losses.dtype
        if any(isinstance(count, Tensor) for count in self.counts):
            return torch.stack([torch.as_tensor(count, device=device) for count in self.counts])
        return torch.tensor(self.counts, dtype=dtype).to(device, non_blocking=True)

    def shares(self, present: Sequence[int], counts: Sequence[Any]) -> list[Any]:
        """A rank's part in each of its own tasks ``present``: its count over that of all ranks."""
        counted = self.items()
        totals = [counted[self.present.index(i)] for i in present]
        return [torch.as_tensor(c).to(total) / total for c, total in zip(counts, totals, strict=True)]

    def make_non_finite(self, n: int | None = None) -> None:
        """Make every gradient of this step, of n rows, non-finite, so that a GradScaler skips it."""
        nan = np.full(n or len(self.present), np.nan)
        self.per_row = nan, nan
        self.change.ok = torch.tensor(False)

    @property
    def trunk(self) -> Weights:
        """Weights [m] of the shared parameters, those of several batches added up."""
        found, m = self.per_row[0], len(self.present)
        return found if found is None or len(found) == m else found.reshape(-1, m).sum(0)

    def weights(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Task -> weight [] on the losses' device; empty where the method has none."""
        if self.trunk is None:
            return {}
        weights = torch.as_tensor(self.trunk, device=self.losses.device, dtype=self.losses.dtype)
        return {tasks[i]: w for i, w in zip(self.present, weights.detach().unbind(), strict=True)}

    def metrics(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """``loss/a``, ``weight/a`` and, where there is a Gramian, ``norm/a`` and ``cos/a_b``, all [].

        With parameter groups also ``weight/a/group``.
        """
        names = [tasks[i] for i in self.present]
        out = {f"loss/{n}": x for n, x in zip(names, self.losses.unbind(), strict=True)}
        out |= {f"weight/{n}": x for n, x in self.weights(tasks).items()}
        for group, rows in self.by_group.items():
            found = torch.from_numpy(rows.reshape(-1, len(names)).sum(0))
            out |= {f"weight/{n}/{group}": x for n, x in zip(names, found, strict=True) if not x.isnan()}
        if self.gram is not None:
            gram = torch.from_numpy(self.gram)
            norms = gram.diagonal().sqrt()
            out |= {f"norm/{n}": x for n, x in zip(names, norms.unbind(), strict=True)}
            cos = gram / (norms[:, None] * norms).clamp(min=torch.finfo(gram.dtype).tiny)
            out |= {f"cos/{names[i]}_{names[j]}": cos[i, j] for i in range(len(names)) for j in range(i)}
        return out


@dataclass
class Measured:
    """What a way of measuring has found, for the strategy to look at."""

    step: Step
    factor: Tensor  #: [], still in the rows
    leaves: Leaves  #: what the rows are over
    rows: list[Row] = field(default_factory=list)
    at: list[int] | None = None  #: places of the leaves that are measured; None: nothing new is
    whole: bool = False  #: the rows cover every leaf: ``.grad`` is made of them
    apart: Sequence[int] = ()  #: places of the leaves whose rows are each rank's own part of them
    add: Callable[[Tensor], Tensor] | None = None  #: over ranks or shards, whose Gramians add up
    validation: tuple[Sequence[Row], Tensor | None] = ((), None)  #: rows and losses [v] of another batch
