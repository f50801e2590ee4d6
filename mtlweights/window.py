"""Gradient accumulation as one big batch: the rows of all micro-batches, weighted once."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .gradients import Row
from .step import Batch


class Window:
    """Sums the rows of an optimizer step's micro-batches, each by its count.

    With counts, k micro-batches equal the one batch they are cut from; without, the result is that of the
    mean of their means. Memory: one row of gradients per task, kept until the window closes.

    Args:
        steps: Micro-batches per optimizer step; None: Accelerate or DDP tells when one ends.
        wrapper: The model as the user passed it, to read DDP's ``no_sync``.
    """

    def __init__(self, steps: int | None, wrapper: nn.Module | None) -> None:
        self.steps, self.wrapper = steps, wrapper
        self._clear()

    def _clear(self) -> None:
        self.rows: dict[int, Row] = {}
        self.losses: dict[int, Tensor] = {}
        self.counts: dict[int, Tensor] = {}
        self.factor: Tensor | float = 0.0
        self.seen = 0

    def closes(self) -> bool:
        """Whether the micro-batch at hand is the last before the optimizer's step.

        Counted if ``steps`` says so (an Accelerator used earlier in the process may still be around), else
        read from Accelerate's GradientState, else from DDP's ``no_sync``.

        Raises:
            ValueError: nothing tells.
        """
        if self.steps is not None:
            return self.seen + 1 >= self.steps
        accelerate = sys.modules.get("accelerate.state")
        if accelerate is not None and accelerate.GradientState._shared_state:
            return bool(accelerate.GradientState().sync_gradients)
        if hasattr(self.wrapper, "require_backward_grad_sync"):
            return bool(self.wrapper.require_backward_grad_sync)  # type: ignore[union-attr]
        raise ValueError(
            "accumulation='window' must know the last micro-batch of a step: train with Accelerate or "
            "DDP's no_sync(), or pass accumulation_steps=, the micro-batches per optimizer step."
        )

    def add(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Take in one micro-batch and its rows."""
        self.seen += 1
        self.factor = self.factor + batch.factor
        for i, row, value, number in zip(batch.present, rows, batch.values, batch.counts, strict=True):
            loss = value.detach()
            count = torch.as_tensor(number, device=loss.device, dtype=loss.dtype)
            total = self.rows.setdefault(i, [None] * len(row))
            for k, gradient in enumerate(row):
                if gradient is not None:
                    part, before = gradient * count.to(gradient.dtype), total[k]
                    total[k] = part if before is None else before + part
            self.losses[i] = self.losses.get(i, 0) + loss * count
            self.counts[i] = self.counts.get(i, 0) + count

    def take(self) -> tuple[Batch, list[Row]]:
        """The whole window as one batch, without graph, and its rows; the window starts anew.

        The caller's 1/k is in the rows already, so each is weighted by its count over the mean count, and
        the factor they carry is the sum of those that came in.
        """
        present = sorted(self.rows)
        counts = torch.stack([self.counts[i] for i in present])
        losses = torch.stack([self.losses[i] for i in present]) / counts
        rows: list[Row] = [
            [g if g is None else g * (self.seen / count).to(g.dtype) for g in self.rows[i]]
            for i, count in zip(present, counts, strict=True)
        ]
        whole = Batch(present, list(losses), list(counts), torch.as_tensor(self.factor))
        self._clear()
        return whole, rows
