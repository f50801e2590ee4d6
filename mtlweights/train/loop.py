"""The training loop."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..problems import mean_normalised
from ..problems.data.digest import digest
from . import batches, checkpoint, preparing, sharding
from .extras import Extras
from .history import History, Mean, over
from .order import order_of
from .processes import Processes
from .restoring import resume, state_of
from .scoring import evaluate, to_device
from .settings import Settings
from .stages import Stages

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
        device: torch.device,
        path: Path | None,
        trackers: Sequence[str],
        processes: Processes,
        sharded: bool,
    ) -> None:
        from accelerate.data_loader import prepare_data_loader

        self.balancer, self.problem, self.settings, self.path = balancer, problem, settings, path
        self.inner, self.processes, self.sharded = model, processes, sharded
        balancer._reminders.fed("end_epoch")  # after every epoch, however long
        balancer._finished.watched = settings.stop == "all"
        self.history, self.best, self.lr = History(), dict[str, Any](), 0.0
        self.moved = False  #: there was a backward in this step
        random.seed(settings.seed)
        np.random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.shuffle = torch.Generator()
        parts = balancer.strategy.batches
        self.stages = Stages(problem, settings.epochs) if problem.staged else None
        if self.stages is not None:
            if settings.stop == "all":
                raise ValueError("stop='all' lets tasks leave, but in stages they are trained in turn")
            balancer._reminders.one_at_a_time()
        self.order = order_of(problem, settings, self.shuffle)
        self.extras = Extras(model, problem, settings)
        self.extras.check(processes.number, sharded)
        loader = batches.training(
            problem,
            settings.batch_size,
            parts,
            self.shuffle,
            processes,
            self.order,
            self.extras.augment,
            self.extras.views,
        )
        self.sampler = loader.batch_sampler
        self.held_out = batches.HeldOut(problem, settings.batch_size)
        self.window = settings.accumulate * parts * self.extras.views
        self.updates = math.ceil(len(loader) / self.window)  # optimizer steps per epoch
        parameters = [p for p in model.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
        # made before prepare(): it wraps the optimizer's `step`, and a GradScaler keeps the one it finds then
        self.schedule = torch.optim.lr_scheduler.LambdaLR(adamw, self._rate)
        reduces = processes.number > 1 and not sharded and balancer._engine.one_pass  # DDP, in its backward
        lacks = settings.stop == "all" or self.order is not None  # some batches some tasks
        partial = reduces and (lacks or preparing.leaves_out(model, problem))
        self.accelerator = preparing.accelerator(
            settings, self.window, device, sharded, path, trackers, partial
        )
        if sharded and settings.precision == "bf16":
            preparing.cast(model, device)
        self.model, self.optimizer = self.accelerator.prepare(model, adamw)
        # the share of a process is settled: what prepare() would deal out again, or twice, it must not see
        self.loader = prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True)
        balancer.attach(adamw)
        self.identity = self._identity()
        config = {name: str(value) for name, value in self.identity.items()}
        place = {} if path is None else {"dir": str(path.parent)}
        self.accelerator.init_trackers("mtlweights", config, {"wandb": place})

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
        total = self.settings.epochs * self.updates
        with tqdm(
            total=total, initial=self.history.steps, unit="step", disable=None if progress else True
        ) as bar:
            if self.history.rows and after_epoch is not None:
                after_epoch(self.history)
            while not self._ended():
                self._epoch(bar)
                if after_epoch is not None:
                    after_epoch(self.history)
        sharding.put_back(self.inner, self.best)
        return self.history

    def _ended(self) -> bool:
        """Whether nothing is left to train; patience counts from the last stage on."""
        done = len(self.history.rows)
        if self.stages is not None and not (done and self.stages.last(done)):
            return done >= self.settings.epochs
        return self.history.ended(self.settings, self.problem.tasks)

    def _rate(self, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0), as a share of the peak."""
        total = self.settings.epochs * self.updates
        warmup = round(self.settings.warmup * total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        left = (total - step) / max(total - warmup, 1)
        cosine = 0.5 - 0.5 * math.cos(math.pi * left)
        return {"constant": 1.0, "linear": left, "cosine": cosine}[self.settings.schedule]

    def _epoch(self, bar: Any) -> None:
        start, epoch, tasks = time.perf_counter(), len(self.history.rows) + 1, self.problem.tasks
        bar.set_description(f"epoch {epoch}/{self.settings.epochs}")
        seen = dict.fromkeys((task.name for task in tasks), 0)
        losses, weights = self._train(epoch, bar, seen)
        size = self.settings.batch_size
        dev = evaluate(self.inner, self.problem, "dev", batch_size=size, processes=self.processes)
        score = mean_normalised(tasks, dev)
        self.balancer.end_epoch(
            {task.name: task.normalised(dev[task.name][task.metrics[0]]) for task in tasks}
        )
        train, weight = ({name: float(mean) for name, mean in means.items()} for means in (losses, weights))
        self._log(
            {f"loss/{name}": value for name, value in train.items()}
            | {f"weight/{name}": value for name, value in weight.items()}
            | {f"dev/{name}/{metric}": v for name, scores in dev.items() for metric, v in scores.items()}
            | {"score": score, "lr": self.lr}
        )
        bar.set_postfix(loss=f"{sum(train.values()):.4g}", score=f"{score:.4f}")
        row = {"epoch": epoch, "train": train, "weight": weight, "dev": dev, "score": score, "lr": self.lr}
        every = self.processes.all(seen)
        row["seen"] = {name: sum(part[name] for part in every) for name in seen}
        anew = self.stages is not None and self.stages.begins(epoch)
        if self.history.add(
            self.processes.same(lambda: {**row, "seconds": time.perf_counter() - start}), anew
        ):
            self.best = sharding.kept(self.inner)
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
        self.model.train()
        self._seed(self.settings.seed * 1_000_003 + epoch)
        if self.order is not None:
            tasks = None if self.stages is None else self.stages.tasks(epoch)
            self.order.start(epoch, self.settings.epochs, tasks)
        self.extras.start(epoch)
        for index, batch in enumerate(self.loader):
            batch, fresh = self.extras.same(self.sampler, index, batch)
            batches.leave_out(batch, self.balancer.finished)
            parts = [*(parts if whole else []), *([batch] if batch["counts"] else [])]
            with self.accelerator.accumulate(self.model):
                step = self.history.steps + 1
                if batch["counts"]:
                    self._backward(batch, index, losses, weights)
                for name, count in batch["counts"].items():
                    # a tensor is 0
                    seen[name] += 0 if isinstance(count, torch.Tensor) or not fresh else count
                if self.accelerator.sync_gradients:
                    self._step()
                    if parts:
                        self.balancer.after_step(partial(self._again, parts))
                    parts = []
                    bar.update()
                    if step % LOG_EVERY == 0:
                        self._check_finite(over(self.processes, losses), epoch)
                        self._log({f"batch/{name}": v for name, v in self.balancer.metrics().items()})
        losses = over(self.processes, losses)
        self._check_finite(losses, epoch)
        return losses, weights

    def _backward(self, batch: Any, index: int, losses: dict[str, Mean], weights: dict[str, Mean]) -> None:
        """The balanced backward of a batch; its losses and weights join their means."""
        found, step = self.extras.losses(batch, self._forward), self.history.steps + 1
        if "validate" in self.balancer.hooks and self.accelerator.sync_gradients:
            self._validate()
        loss = self.balancer(found, batch["counts"])
        self.accelerator.backward(loss * self._window_factor(index))
        self.moved = True
        for name, value in found.items():
            losses[name].add(value, batch["counts"][name], step)
        # in an open window the weights are those of the step before
        if self.accelerator.sync_gradients or self.balancer.options.accumulation != "window":
            for name, value in self.balancer.weights.items():
                weights.setdefault(name, Mean()).add(value, 1, step)

    def _seed(self, seed: int) -> None:
        """Seed an epoch's order; and, but in the first process, dropout, which is another in each."""
        self.shuffle.manual_seed(seed)
        if not self.processes.first:
            seed = seed * self.processes.number + self.processes.rank
            random.seed(seed)
            np.random.seed(seed % 2**32)
            torch.manual_seed(seed)

    def _window_factor(self, index: int) -> float:
        """Accelerate divides every batch's loss by `window`; the last window may hold fewer batches."""
        left = len(self.loader) % self.window
        return self.window / left if left and index >= len(self.loader) - left else 1.0

    def _validate(self) -> None:
        batch = to_device(self.held_out(self.history.steps), self.accelerator.device)
        batches.leave_out(batch, self.balancer.finished)
        if batch["targets"]:
            self.balancer.validate(lambda: self.inner(batch["inputs"], batch["targets"]).losses)

    def _again(self, parts: list[Any]) -> list[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        return [(self._losses(batch), batch["counts"]) for batch in parts]

    def _losses(self, batch: Any) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = self._forward(batch["inputs"], batch["targets"]).losses
        return losses

    def _forward(self, inputs: Any, targets: Any) -> Any:
        # DDP's own forward where a backward follows that it is to reduce
        model = self.model if torch.is_grad_enabled() else self.inner
        output = model(inputs, targets)
        if self.sharded and self.history.steps == 0:
            sharding.check_output(output)
        return output

    def _step(self) -> None:
        if self.moved:  # else all batches of the step were of finished tasks
            if self.settings.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.history.steps += 1
        self.lr = float(self.schedule.get_last_lr()[0])
        if not (self.moved and self.accelerator.optimizer_step_was_skipped):
            self.schedule.step()
        self.moved = False

    def _check_finite(self, losses: dict[str, Mean], epoch: int) -> None:
        # a scaler skips the step of a loss that is not finite: the run is lost only if there is no other
        skips = self.accelerator.scaler is not None
        bad = {name: float(mean.first) for name, mean in losses.items() if not (skips and int(mean.weight))}
        first = min(bad.values(), default=math.inf)
        if first < math.inf:
            names = " and ".join(repr(name) for name in bad if bad[name] == first)
            clip = "set clip" if self.settings.clip is None else f"a clip below {self.settings.clip}"
            start = (epoch - 1) * self.updates
            raise FloatingPointError(
                f"the loss of task {names} is NaN or infinite from step {first:.0f} on (epoch {epoch}: steps "
                f"{start + 1} to {start + self.updates}): try an lr below {self.settings.lr}, {clip}, "
                "or look for NaN or huge values in the inputs and labels"
            )

    def _log(self, values: Mapping[str, Any]) -> None:
        if self.accelerator.trackers and self.processes.first:
            found = {name: float(value) for name, value in values.items()}
            self.accelerator.log(found, step=self.history.steps)
