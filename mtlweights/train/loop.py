"""The training loop."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from ..files.escapes import message_of
from ..problems import mean_normalised
from ..problems.data.digest import digest
from . import batches, checkpoint
from .history import History, Mean
from .restoring import restore
from .scoring import evaluate, to_device
from .settings import Settings

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
    ) -> None:
        from accelerate import Accelerator
        from accelerate.utils import GradientAccumulationPlugin

        self.balancer, self.problem, self.settings, self.path = balancer, problem, settings, path
        balancer._reminders.fed("end_epoch")  # after every epoch, however long
        self.history, self.best, self.lr = History(), dict[str, Any](), 0.0
        random.seed(settings.seed)
        np.random.seed(settings.seed)
        torch.manual_seed(settings.seed)
        self.shuffle = torch.Generator()
        parts = balancer.strategy.batches
        loader = batches.training(problem, settings.batch_size, parts, self.shuffle)
        self.held_out = batches.HeldOut(problem, settings.batch_size)
        self.window = settings.accumulate * parts
        self.updates = math.ceil(len(loader) / self.window)  # optimizer steps per epoch
        parameters = [p for p in model.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
        # made before prepare(): it wraps the optimizer's `step`, and a GradScaler keeps the one it finds then
        self.schedule = torch.optim.lr_scheduler.LambdaLR(adamw, self._rate)
        self.accelerator = Accelerator(
            cpu=device.type == "cpu",
            mixed_precision=settings.precision,
            gradient_accumulation_plugin=GradientAccumulationPlugin(self.window),
            log_with=list(trackers) or None,
            project_dir=None if path is None else path.parent,
        )
        self.model, self.optimizer, self.loader = self.accelerator.prepare(model, adamw, loader)
        balancer.attach(adamw)
        self.identity = checkpoint.identity(balancer, problem, settings)
        if path is not None:
            self.identity["data"] = digest(problem)
        config = {name: str(value) for name, value in self.identity.items()}
        place = {} if path is None else {"dir": str(path.parent)}
        self.accelerator.init_trackers("mtlweights", config, {"wandb": place})

    def run(self, progress: bool, after_epoch: Callable[[History], None] | None = None) -> History:
        """Resume if there is a checkpoint, train what is left, and give the model its best weights."""
        from tqdm import tqdm

        if self.path is not None and self.path.exists():
            self._resume(self.path)
        for note in self.problem.notes if progress else ():
            print(f"mtlweights: {note}", file=sys.stderr)
        total = self.settings.epochs * self.updates
        with tqdm(total=total, initial=self.history.steps, unit="step", disable=not progress) as bar:
            if self.history.rows and after_epoch is not None:
                after_epoch(self.history)
            while not self.history.ended(self.settings.epochs, self.settings.patience):
                self._epoch(bar)
                if after_epoch is not None:
                    after_epoch(self.history)
        self.model.load_state_dict(self.best)
        return self.history

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
        dev = evaluate(self.model, self.problem, "dev", batch_size=self.settings.batch_size)
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
        row["seen"] = seen
        if self.history.add({**row, "seconds": time.perf_counter() - start}):
            self.best = {key: value.detach().cpu().clone() for key, value in self.model.state_dict().items()}
        if self.path is not None:
            checkpoint.save(self.path, self._state())

    def _train(self, epoch: int, bar: Any, seen: dict[str, int]) -> tuple[dict[str, Mean], dict[str, Mean]]:
        """One pass over the training split; mean loss and weight per task, and counts added to ``seen``."""
        losses = {task.name: Mean() for task in self.problem.tasks}
        weights: dict[str, Mean] = {}
        whole = "after_step" in self.balancer.hooks and self.balancer.options.accumulation == "window"
        parts: list[Any] = []  # the last batch, or the whole window's where they are seen again
        self.model.train()
        self.shuffle.manual_seed(self.settings.seed * 1_000_003 + epoch)
        for index, batch in enumerate(self.loader):
            parts = [*(parts if whole else []), batch]
            with self.accelerator.accumulate(self.model):
                found = self._losses(batch)
                if "validate" in self.balancer.hooks and self.accelerator.sync_gradients:
                    self.balancer.validate(self._held_out_losses)
                loss = self.balancer(found, batch["counts"])
                self.accelerator.backward(loss * self._window_factor(index))
                step = self.history.steps + 1
                for name, value in found.items():
                    losses[name].add(value, batch["counts"][name], step)
                    seen[name] += int(batch["counts"][name])
                for name, value in self.balancer.weights.items():
                    weights.setdefault(name, Mean()).add(value, 1, step)
                if self.accelerator.sync_gradients:
                    self._step()
                    self.balancer.after_step(partial(self._again, parts))
                    parts = []
                    bar.update()
                    if step % LOG_EVERY == 0:
                        self._check_finite(losses, epoch)
                        self._log({f"batch/{name}": float(v) for name, v in self.balancer.metrics().items()})
        self._check_finite(losses, epoch)
        return losses, weights

    def _window_factor(self, index: int) -> float:
        """Accelerate divides every batch's loss by `window`; the last window may hold fewer batches."""
        left = len(self.loader) % self.window
        return self.window / left if left and index >= len(self.loader) - left else 1.0

    def _held_out_losses(self) -> dict[str, torch.Tensor]:
        return self._losses(to_device(self.held_out(self.history.steps), self.accelerator.device))

    def _again(self, parts: list[Any]) -> list[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        return [(self._losses(batch), batch["counts"]) for batch in parts]

    def _losses(self, batch: Any) -> dict[str, torch.Tensor]:
        losses: dict[str, torch.Tensor] = self.model(batch["inputs"], batch["targets"]).losses
        return losses

    def _step(self) -> None:
        if self.settings.clip is not None:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.history.steps += 1
        self.lr = float(self.schedule.get_last_lr()[0])
        if not self.accelerator.optimizer_step_was_skipped:
            self.schedule.step()

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

    def _log(self, values: dict[str, float]) -> None:
        if self.accelerator.trackers:
            self.accelerator.log(values, step=self.history.steps)

    def _state(self) -> dict[str, Any]:
        scaler = self.accelerator.scaler
        return {
            "run": self.identity,
            "model": self.model.state_dict(),
            "best": self.best,
            "optimizer": self.optimizer.state_dict(),  # with the balancer's, attached to it
            "schedule": self.schedule.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "rng": checkpoint.rng_state(),
            "history": asdict(self.history),
        }

    def _resume(self, path: Path) -> None:
        state = checkpoint.load(path)
        checkpoint.check_same(path, state["run"], self.identity)
        try:
            self._restore(state)
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # whatever the part that does not fit raises
            reason = message_of(error)[:200]
            raise ValueError(f"{path} is of another model ({reason}): use another folder") from None

    def _restore(self, state: dict[str, Any]) -> None:
        """Put every part back; raises whatever a part raises that is not this run's."""
        history = History(**state["history"])
        history.check(self.settings.epochs, self.updates)
        restore(state, self._state(), self.model, self.optimizer, self.schedule, self.accelerator.scaler)
        self.best, self.history = state["best"], history
        checkpoint.set_rng_state(state["rng"])
