"""What a run did: its rows, and the means they are made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .processes import Processes
from .settings import Settings

if TYPE_CHECKING:
    from ..problems import Task


@dataclass
class History:
    """What a run did.

    Attributes:
        rows: per epoch {"epoch": from 1, "train": {task: mean loss over its items}, "weight": {task: mean
            weight}, "dev": {task: {metric: value}}, "score": mean normalised dev score, "lr": of the last
            step, "seen": {task: labelled items trained on}, "seconds": of training and scoring}. A task no
            batch had gets NaN; "weight" is empty for a method without weights.
        best_epoch: the epoch whose weights the model ends with.
        best_score: its score.
        steps: optimizer steps, those a scaler skipped included.
        seconds: of all epochs, those before an interruption included.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    best_epoch: int = 0
    best_score: float = math.nan
    steps: int = 0
    seconds: float = 0.0

    def add(self, row: dict[str, Any], anew: bool = False) -> bool:
        """Append an epoch's row; whether it is the best so far (a NaN score never beats another).

        ``anew``: those before do not count.
        """
        self.rows.append(row)
        self.seconds += row["seconds"]
        score = row["score"]
        none = anew or self.best_epoch == 0 or (math.isnan(self.best_score) and not math.isnan(score))
        if none or score > self.best_score:
            self.best_epoch, self.best_score = len(self.rows), score
        return self.best_epoch == len(self.rows)

    def ended(self, settings: Settings, tasks: Sequence[Task]) -> bool:
        """Whether all epochs are done, or the run's patience is over, with the mean or with every task."""
        done, patience = len(self.rows), settings.patience
        if settings.stop == "all":
            return done >= settings.epochs or len(self.stopped(settings, tasks)) == len(tasks)
        return done >= settings.epochs or (patience is not None and done - self.best_epoch >= patience)

    def stopped(self, settings: Settings, tasks: Sequence[Task]) -> list[str]:
        """The tasks, with ``stop="all"``, that have had ``patience`` epochs without a better score of theirs.

        One that had stays so: its score may yet move with what it shares.
        """
        patience = settings.patience if settings.stop == "all" else None
        return [] if patience is None else [t.name for t in tasks if self._waited(t) >= patience]

    def _waited(self, task: Task) -> int:
        """The most epochs in a row without a better score of the task."""
        best, waited, most = -math.inf, 0, 0
        for row in self.rows:
            score = task.normalised(row["dev"][task.name][task.metrics[0]])
            better = score > best
            best, waited = (score, 0) if better else (best, waited + 1)
            most = max(most, waited)
        return most

    def check(self, epochs: int, updates: int) -> None:
        """Refuse a history that no run of that many epochs, of ``updates`` steps each, can have left.

        Raises:
            ValueError: what is wrong.
        """
        done = len(self.rows)
        if [row["epoch"] for row in self.rows] != list(range(1, done + 1)) or not 1 <= done <= epochs:
            raise ValueError(f"its rows are not those of 1 to {epochs} epochs")
        if not 1 <= self.best_epoch <= done or self.steps != done * updates:
            raise ValueError(f"its best epoch or its number of steps is not one of {done} epochs")


class Mean:
    """Weighted mean of scalars that stay on the device until read; those not finite are left out.

    Attributes:
        first: step of the first one that was not finite; infinite if there was none.
    """

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.weight: Tensor | int = 0
        self.first: Tensor | float = math.inf

    def add(self, value: Tensor, weight: int, step: int) -> None:
        """Take in a scalar without waiting for the device."""
        value = value.detach()
        finite = value.isfinite()
        self.total = self.total + torch.where(finite, value, 0.0) * weight
        self.weight = self.weight + finite * weight
        self.first = torch.where(finite, math.inf, float(step)).clamp(max=self.first)

    def __float__(self) -> float:
        weight = int(self.weight)
        return float(self.total) / weight if weight else math.nan


def over(processes: Processes, means: dict[str, Mean]) -> dict[str, Mean]:
    """The means over what all processes have seen; all call, with the same names."""
    if processes.number == 1:
        return means
    mine = {name: (float(m.total), int(m.weight), float(m.first)) for name, m in means.items()}
    every, out = processes.all(mine), {}
    for name in means:
        totals, weights, firsts = zip(*(part[name] for part in every), strict=True)
        out[name] = mean = Mean()
        mean.total, mean.first = math.fsum(totals), min(firsts)
        mean.weight = sum(weights)
    return out
