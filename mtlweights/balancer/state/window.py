"""Gradient accumulation as one big batch, or as several: the rows of all micro-batches, weighted once."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...gradients.batch import Batch
from ...gradients.leaves import Leaves
from ...gradients.task_gradients import Row
from ..records import Step


class Window:
    """Sums the rows of an optimizer step's micro-batches, each by its count.

    With counts, k micro-batches equal the one batch they are cut from; without, the result is that of the
    mean of their means. Memory: one row of gradients per task, kept until the window closes.

    Args:
        steps: Micro-batches per optimizer step; None: Accelerate or DDP tells when one ends.
        wrapper: The model as the user passed it, to read DDP's ``no_sync``.
        batches: Micro-batches go in turn to this many batches, whose rows are kept apart: those of task i
            in batch b are task ``i + b * n_tasks`` of what :meth:`take` gives.
        n_tasks: T.
    """

    def __init__(self, steps: int | None, wrapper: nn.Module | None, batches: int, n_tasks: int) -> None:
        self.steps, self.wrapper, self.batches, self.n_tasks = steps, wrapper, batches, n_tasks
        self._clear()

    def _clear(self) -> None:
        self.rows: dict[int, dict[int, Tensor]] = {}  # place -> id of a parameter -> gradient
        self.reached: dict[int, Tensor] = {}
        self.tasks: dict[int, int] = {}  # id of a parameter -> those that reach it, bit i for task i
        self.losses: dict[int, Tensor] = {}
        self.counts: dict[int, Tensor] = {}
        self.factor: Tensor | float = 0.0
        self.seen = 0

    def closes(self) -> bool:
        """Whether the micro-batch at hand is the last before the optimizer's step.

        Counted if ``steps`` says so, else as the Lightning callback has marked the module, else read from
        Accelerate's GradientState, else from DDP's ``no_sync``; else one micro-batch per batch, if there are
        several.

        Raises:
            ValueError: nothing tells.
        """
        if self.steps is not None:
            return self.seen + 1 >= self.steps
        mark = getattr(self.wrapper, "require_backward_grad_sync", None)
        if mark is not None and not isinstance(self.wrapper, DistributedDataParallel):
            return bool(mark)
        accelerate = sys.modules.get("accelerate.state")
        if accelerate is not None and accelerate.GradientState._shared_state:
            told = accelerate.GradientState()
            # before every batch is there only the end of the data can be an end: else it is of another loop
            enough = self.seen + 1 >= self.batches or told.end_of_dataloader
            return bool(told.sync_gradients and enough)
        if mark is not None:
            return bool(mark)
        if self.batches > 1:
            return self.seen + 1 >= self.batches
        raise ValueError(
            "accumulation='window' must know the last micro-batch of a step: pass accumulation_steps=, the "
            "micro-batches per optimizer step, or train with Accelerate, DDP's no_sync() or, in Lightning, "
            "mtlweights.integrations.lightning.BalancerCallback, the module being the balancer's model."
        )

    def check_stepped(self) -> None:
        """A micro-batch comes in although the gradient of a closed window still lies there.

        Raises:
            RuntimeError: what told the end of that window is not of this loop.
        """
        if self.steps is None and self.batches == 1:
            raise RuntimeError(
                "accumulation='window': a window was closed, as Accelerate or DDP told, but the optimizer "
                "has not stepped since. If what told is of another loop (an Accelerator made earlier in this "
                "process), or a step has several windows, pass accumulation_steps=, the micro-batches of one."
            )

    def check_closed(self) -> None:
        """The optimizer has stepped.

        Raises:
            RuntimeError: in the middle of a window.
        """
        if self.seen:
            seen = self.seen
            self._clear()
            raise RuntimeError(
                f"The optimizer stepped after {seen} of {self.steps or self.batches} micro-batches, before "
                "the balancer wrote any gradient: call backward for all of them first, or pass the number "
                "there are as accumulation_steps=."
            )

    def params(self) -> list[Tensor]:
        """The parameters that the micro-batches so far have reached."""
        return list(self.reached.values())

    def add(self, batch: Batch, rows: Sequence[Row]) -> None:
        """Take in one micro-batch and its rows over all its leaves."""
        offset = self.seen % self.batches * self.n_tasks
        self.seen += 1
        self.factor = self.factor + batch.factor
        whole = batch.leaves.graph is None  # of shards, which rows alone tell of
        masks = reached(batch.present, rows) if whole else batch.leaves.here
        for param, tasks in zip(batch.leaves.params, masks, strict=True):
            if tasks:
                self.reached[id(param)] = param
                self.tasks[id(param)] = self.tasks.get(id(param), 0) | tasks
        places = [i + offset for i in batch.present]
        for i, row, value, number in zip(places, rows, batch.values, batch.counts, strict=True):
            loss = _wide(value.detach())
            count = number if isinstance(number, Tensor) else torch.full_like(loss, number)
            count = count.to(loss)
            total = self.rows.setdefault(i, {})
            for param, gradient in zip(batch.leaves.params, row, strict=True):
                if gradient is not None:
                    part, before = _wide(gradient), total.get(id(param))
                    part = part * count.to(part.dtype)
                    total[id(param)] = part if before is None else before + part
            self.losses[i] = self.losses.get(i, 0) + loss * count
            self.counts[i] = self.counts.get(i, 0) + count

    def take(self, leaves: Leaves) -> tuple[Batch, list[Row]]:
        """The whole window as one batch, without graph, and its rows over ``leaves``; it starts anew.

        The caller's 1/k is in the rows already, so each is weighted by its count over the mean count, and
        the factor they carry is the sum of those that came in.
        """
        present = sorted(self.rows)
        counts = torch.stack([self.counts[i] for i in present])
        shared_by = torch.where(counts > 0, counts, 1)  # without an item here there is one elsewhere
        losses = torch.stack([self.losses[i] for i in present]) / shared_by
        rows: list[Row] = []
        for i, count in zip(present, shared_by, strict=True):
            row = [self.rows[i].pop(id(param), None) for param in leaves.params]
            scale = self.seen / count
            pairs = zip(row, leaves.params, strict=True)
            rows.append([g if g is None else (g * scale.to(g.dtype)).to(p.dtype) for g, p in pairs])
        whole = Batch(present, list(losses), list(counts), leaves, torch.as_tensor(self.factor))
        self._clear()
        return whole, rows


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: a half-precision number times a count may lie outside its range."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def reached(present: Sequence[int], rows: Sequence[Row]) -> list[int]:
    """For each parameter the tasks that have a row there, bit i for task i."""
    masks = [0] * len(rows[0])
    for i, row in zip(present, rows, strict=True):
        for k, gradient in enumerate(row):
            if gradient is not None:
                masks[k] |= 1 << i
    return masks


def merge(
    parts: Iterable[tuple[Mapping[str, Tensor], Mapping[str, Any]]],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Task -> mean loss over micro-batches, each by its count, and task -> the sum of the counts."""
    sums: dict[str, Tensor] = {}
    items: dict[str, Any] = {}
    for losses, counts in parts:
        for task, loss in losses.items():
            count = counts.get(task, 1)
            if isinstance(count, Tensor) or count:  # the loss of a task without items may be NaN
                sums[task] = sums.get(task, 0) + loss * count
                items[task] = items.get(task, 0) + count
    # a process may have no item of a task that others have: its count is a tensor of 0, its loss too
    return {task: total / (items[task] + (items[task] == 0)) for task, total in sums.items()}, items


def unstack(step: Step, rows: list[Row], batches: int, n_tasks: int) -> tuple[Step, list[Row]] | None:
    """The rows [km] of the m tasks that all k batches have, batch by batch, and the means of their losses.

    A task missing from one batch sits the step out; None if no task is left.
    """
    at = {i: k for k, i in enumerate(step.present)}
    present = [i for i in range(n_tasks) if all(i + b * n_tasks in at for b in range(batches))]
    if not present:
        return None
    places = [[at[i + b * n_tasks] for i in present] for b in range(batches)]
    index = torch.tensor(places).to(step.losses.device, non_blocking=True)
    counts, losses = step.items()[index], step.losses[index]  # [k, m]
    total = counts.sum(0)
    folded = Step(present, (losses * counts).sum(0) / total, total)
    return folded, [rows[k] for group in places for k in group]
