"""The training loop: epochs, and what lies between them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader

from ..problems import mean_normalised
from ..problems.data.digest import digest
from . import batches, checkpoint, sharding
from .extras import Extras
from .history import History, Mean, over
from .order import order_of
from .preparing import Place
from .restoring import resume, state_of
from .scoring import evaluate
from .settings import Settings
from .stages import Stages
from .updates import Updates

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer
    from ..problems import Problem

LOG_EVERY = 50  # steps between two reads of the device: trackers' values, and the check for bad losses


class Loop:
    """One run of `fit`: its moving parts, an epoch, and its state for a checkpoint."""

    def __init__(
        self,
        model: nn.Module,
        balancer: Balancer,
        problem: Problem,
        settings: Settings,
        place: Place,
    ) -> None:
        self.balancer, self.problem, self.settings = balancer, problem, settings
        self.path, self.processes = place.path, place.processes
        balancer._reminders.fed("end_epoch")  # after every epoch, however long
        balancer._finished.watched = settings.stop == "all"
        self.history, self.best = History(), dict[str, Any]()
        random.seed(settings.seed)
        np.random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.shuffle = torch.Generator()
        self.stages = self._staged() if problem.staged else None
        self.order = order_of(problem, settings, self.shuffle)
        self.extras = Extras(model, problem, settings)
        self.extras.check(self.processes.number, place.sharded)
        loader = self._batches()
        self.sampler = loader.batch_sampler
        lacks = settings.stop == "all" or self.order is not None
        self.updates = Updates(model, balancer, problem, settings, self.extras, loader, lacks, place)
        self.accelerator = self.updates.accelerator
        self.identity = self._identity()
        config = {name: str(value) for name, value in self.identity.items()}
        wandb = {} if self.path is None else {"dir": str(self.path.parent)}
        self.accelerator.init_trackers("mtlweights", config, {"wandb": wandb})

    def _staged(self) -> Stages:
        stages = Stages(self.problem, self.settings.epochs)
        if self.settings.stop == "all":
            raise ValueError("stop='all' lets tasks leave, but in stages they are trained in turn")
        self.balancer._reminders.one_at_a_time()
        return stages

    def _batches(self) -> DataLoader[Any]:
        return batches.training(
            self.problem,
            self.settings.batch_size,
            self.balancer.strategy.batches,
            self.shuffle,
            self.processes,
            self.order,
            self.extras.augment,
            self.extras.views,
        )

    def _identity(self) -> dict[str, Any]:
        """What a run shares with one that continues it, and a process with the others."""
        found = checkpoint.identity(self.balancer, self.problem, self.settings)
        if self.path is not None or self.processes.number > 1:
            found["data"] = digest(self.problem)
        self.processes.check_alike(found)
        return found

    def run(self, progress: bool, after_epoch: Callable[[History], None] | None = None) -> History:
        """Resume if there is a checkpoint, train what is left, and give the model its best weights."""
        from tqdm import tqdm

        progress = progress and self.processes.first
        if self.path is not None:
            resume(self, self.path)
        for note in self.problem.notes if progress else ():
            print(f"mtlweights: {note}", file=sys.stderr)
        total = self.settings.epochs * self.updates.per_epoch
        with tqdm(
            total=total, initial=self.history.steps, unit="step", disable=None if progress else True
        ) as bar:
            if self.history.rows and after_epoch is not None:
                after_epoch(self.history)
            while not self._ended():
                self._epoch(bar)
                if after_epoch is not None:
                    after_epoch(self.history)
        sharding.put_back(self.updates.inner, self.best)
        return self.history

    def _ended(self) -> bool:
        """Whether nothing is left to train; patience counts from the last stage on."""
        done = len(self.history.rows)
        if self.stages is not None and not (done and self.stages.last(done)):
            return done >= self.settings.epochs
        return self.history.ended(self.settings, self.problem.tasks)

    def _epoch(self, bar: Any) -> None:
        start, epoch, tasks = time.perf_counter(), len(self.history.rows) + 1, self.problem.tasks
        bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
        seen = dict.fromkeys((task.name for task in tasks), 0)
        losses, weights = self._train(epoch, bar, seen)
        self.history.steps, lr, size = self.updates.number, self.updates.lr, self.settings.batch_size
        dev = evaluate(self.updates.inner, self.problem, "dev", batch_size=size, processes=self.processes)
        score = mean_normalised(tasks, dev)
        self.balancer.end_epoch(
            {task.name: task.normalised(dev[task.name][task.metrics[0]]) for task in tasks}
        )
        train, weight = ({name: float(mean) for name, mean in means.items()} for means in (losses, weights))
        self._log(
            {f"loss/{name}": value for name, value in train.items()}
            | {f"weight/{name}": value for name, value in weight.items()}
            | {f"dev/{name}/{metric}": v for name, scores in dev.items() for metric, v in scores.items()}
            | {"score": score, "lr": lr}
        )
        bar.set_postfix(loss=f"{sum(train.values()):.4g}", score=f"{score:.4f}")
        row = {"epoch": epoch, "train": train, "weight": weight, "dev": dev, "score": score, "lr": lr}
        every = self.processes.all(seen)
        row["seen"] = {name: sum(part[name] for part in every) for name in seen}
        anew = self.stages is not None and self.stages.begins(epoch)
        if self.history.add(
            self.processes.same(lambda: {**row, "seconds": time.perf_counter() - start}), anew
        ):
            self.best = sharding.kept(self.updates.inner)
        self._finish()
        if self.path is not None:
            state, path = state_of(self), self.path
            self.processes.same(lambda: checkpoint.save(path, state))

    def _finish(self) -> None:
        """Let the tasks go that are done; the last of them end the run instead."""
        done = self.history.stopped(self.settings, self.problem.tasks)
        for name in done if len(done) < len(self.problem.tasks) else ():
            if name not in self.balancer.finished:
                self.balancer.finish(name)

    def _train(self, epoch: int, bar: Any, seen: dict[str, int]) -> tuple[dict[str, Mean], dict[str, Mean]]:
        """One pass over the training split; mean loss and weight per task, and counts added to ``seen``."""
        losses = {task.name: Mean() for task in self.problem.tasks}
        weights: dict[str, Mean] = {}
        whole = "after_step" in self.balancer.hooks and self.balancer.options.accumulation == "window"
        parts: list[Any] = []  # the last batch, or the whole window's where they are seen again
        self.updates.model.train()
        self._seed(self.settings.seed * 1_000_003 + epoch)
        if self.order is not None:
            tasks = None if self.stages is None else self.stages.tasks(epoch)
            self.order.start(epoch, self.settings.epochs, tasks)
        self.extras.start(epoch)
        for index, batch in enumerate(self.updates.loader):
            batch, fresh = self.extras.same(self.sampler, index, batch)
            batches.leave_out(batch, self.balancer.finished)
            parts = [*(parts if whole else []), *([batch] if batch["counts"] else [])]
            with self.accelerator.accumulate(self.updates.model):
                if batch["counts"]:
                    self.updates.backward(batch, index, losses, weights)
                for name, count in batch["counts"].items() if fresh else ():
                    seen[name] += 0 if isinstance(count, torch.Tensor) else count  # a tensor is 0
                if self.accelerator.sync_gradients:
                    self.updates.step(parts)
                    parts = []
                    bar.update()
                    if self.updates.number % LOG_EVERY == 0:
                        self.updates.check_finite(over(self.processes, losses), epoch)
                        self._log({f"batch/{name}": v for name, v in self.balancer.metrics().items()})
        losses = over(self.processes, losses)
        self.updates.check_finite(losses, epoch)
        return losses, weights

    def _seed(self, seed: int) -> None:
        """Seed an epoch's order; and, but in the first process, dropout, which is another in each."""
        self.shuffle.manual_seed(seed)
        if not self.processes.first:
            seed = seed * self.processes.number + self.processes.rank
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)

    def _log(self, values: Mapping[str, Any]) -> None:
        if self.accelerator.trackers and self.processes.first:
            found = {name: float(value) for name, value in values.items()}
            self.accelerator.log(found, step=self.updates.number)
