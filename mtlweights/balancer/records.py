"""The record of one backward: what it finds and proposes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class Step:
    """What a backward found and what it proposes; m tasks present on any rank."""

    present: list[int]
    losses: Tensor  #: [m]
    counts: Tensor | list[Any]  #: [m], items each loss is the mean of, numbers or tensors
    trunk: Tensor | np.ndarray | None = None  #: weights [m]; None where the method has none
    heads: Tensor | np.ndarray | None = None  #: [m]; None: plain
    gram: np.ndarray | None = None  #: [m, m], of the unscaled rows
    ok: Tensor = field(default_factory=lambda: torch.tensor(True))
    buffers: dict[str, Tensor] = field(default_factory=dict)
    gradients: dict[str, Tensor] = field(default_factory=dict)
    held: Tensor | None = None
    rows: dict[str, Tensor] = field(default_factory=dict)  #: state of a JacobianStrategy, [m, P] each
    wide: bool = False  #: float32 is too short for the weighted rows' sum
    stack: np.ndarray | None = None  #: weights [2, km] of the stacked rows of k batches: trunk, heads

    def items(self) -> Tensor:
        """The counts [m] on the losses' device, without waiting for it."""
        if isinstance(self.counts, Tensor):
            return self.counts
        device, dtype = self.losses.device, self.losses.dtype
        if any(isinstance(count, Tensor) for count in self.counts):
            return torch.stack([torch.as_tensor(count, device=device) for count in self.counts])
        return torch.tensor(self.counts, dtype=dtype).to(device, non_blocking=True)

    def spoil(self) -> None:
        """Make every gradient of this step non-finite, so that a GradScaler skips it."""
        self.trunk = self.heads = np.full(len(self.present), np.nan)
        self.stack = None if self.stack is None else np.full_like(self.stack, np.nan)
        self.ok = torch.tensor(False)

    def weights(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """Task -> weight [] on the losses' device; empty where the method has none."""
        if self.trunk is None:
            return {}
        weights = torch.as_tensor(self.trunk, device=self.losses.device, dtype=self.losses.dtype)
        return {tasks[i]: w for i, w in zip(self.present, weights.detach().unbind(), strict=True)}

    def metrics(self, tasks: Sequence[str]) -> dict[str, Tensor]:
        """``loss/a``, ``weight/a`` and, where there is a Gramian, ``norm/a`` and ``cos/a_b``, all []."""
        names = [tasks[i] for i in self.present]
        out = {f"loss/{n}": x for n, x in zip(names, self.losses.unbind(), strict=True)}
        out |= {f"weight/{n}": x for n, x in self.weights(tasks).items()}
        if self.gram is not None:
            gram = torch.from_numpy(self.gram)
            norms = gram.diagonal().sqrt()
            out |= {f"norm/{n}": x for n, x in zip(names, norms.unbind(), strict=True)}
            cos = gram / (norms[:, None] * norms).clamp(min=torch.finfo(gram.dtype).tiny)
            out |= {f"cos/{names[i]}_{names[j]}": cos[i, j] for i in range(len(names)) for j in range(i)}
        return out
