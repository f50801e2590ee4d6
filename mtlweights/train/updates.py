"""The optimizer steps of a run: balanced backwards, windows of batches, the learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from . import batches, preparing, sharding
from .extras import Extras
from .history import Mean
from .preparing import Place
from .scoring import to_device
from .settings import Settings

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer
    from ..problems import Problem


class Updates:
    """What turns the batches of an epoch into optimizer steps, one per window of micro-batches.

    Args:
        model: not yet wrapped; `inner` from here on, and `model` is what the launcher makes of it.
        loader: this process's batches of an epoch.
        lacks: some batches may lack some tasks.
    """

    def __init__(
        self,
        model: nn.Module,
        balancer: Balancer,
        problem: Problem,
        settings: Settings,
        extras: Extras,
        loader: Any,
        lacks: bool,
        place: Place,
    ) -> None:
        from accelerate.data_loader import prepare_data_loader

        self.inner, self.balancer, self.settings, self.extras = model, balancer, settings, extras
        self.sharded, self.number, self.lr = place.sharded, 0, 0.0
        self.moved = False  #: there was a backward in this step
        self.held_out = batches.HeldOut(problem, settings.batch_size)
        self.window = settings.accumulate * balancer.strategy.batches * extras.views
        self.per_epoch = math.ceil(len(loader) / self.window)
        parameters = [p for p in model.parameters() if p.requires_grad]
        adamw = torch.optim.AdamW(parameters, settings.lr, weight_decay=settings.weight_decay)
        # made before prepare(): it wraps the optimizer's `step`, and a GradScaler keeps the one it finds then
        self.schedule = torch.optim.lr_scheduler.LambdaLR(adamw, self._rate)
        several = place.processes.number > 1
        reduces = several and not place.sharded and balancer._engine.one_pass  # DDP, in its backward
        unreached = reduces and (lacks or preparing.leaves_out(model, problem))
        self.accelerator = preparing.accelerator(settings, self.window, place, unreached)
        if place.sharded and settings.precision == "bf16":
            preparing.cast(model, place.device)
        self.model, self.optimizer = self.accelerator.prepare(model, adamw)
        # the share of a process is settled: what prepare() would deal out again, or twice, it must not see
        self.loader = prepare_data_loader(loader, self.accelerator.device, 1, 0, put_on_device=True)
        balancer.attach(adamw)

    def _rate(self, step: int) -> float:
        """Learning rate of optimizer step `step` (from 0), as a share of the peak."""
        total = self.settings.epochs * self.per_epoch
        warmup = round(self.settings.warmup * total)
        if step < warmup:
            return (step + 1) / (warmup + 1)
        left = (total - step) / max(total - warmup, 1)
        cosine = 0.5 - 0.5 * math.cos(math.pi * left)
        return {"constant": 1.0, "linear": left, "cosine": cosine}[self.settings.schedule]

    def backward(self, batch: Any, index: int, losses: dict[str, Mean], weights: dict[str, Mean]) -> None:
        """The balanced backward of a batch; its losses and weights join their means."""
        found, step = self.extras.losses(batch, self._forward), self.number + 1
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

    def step(self, parts: list[Any]) -> None:
        """The optimizer step; ``parts`` are the batches that strategies which look at it again get to see."""
        if self.moved:  # else all batches of the step were of finished tasks
            if self.settings.clip is not None:
                self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
            self.optimizer.step()
            self.optimizer.zero_grad()
        self.number += 1
        self.lr = float(self.schedule.get_last_lr()[0])
        if not (self.moved and self.accelerator.optimizer_step_was_skipped):
            self.schedule.step()
        self.moved = False
        if parts:
            self.balancer.after_step(partial(self._again, parts))

    def _window_factor(self, index: int) -> float:
        """Accelerate divides every batch's loss by `window`; the last window may hold fewer batches."""
        left = len(self.loader) % self.window
        return self.window / left if left and index >= len(self.loader) - left else 1.0

    def _validate(self) -> None:
        batch = to_device(self.held_out(self.number), self.accelerator.device)
        batches.leave_out(batch, self.balancer.finished)
        if batch["targets"]:
            self.balancer.validate(lambda: self.inner(batch["inputs"], batch["targets"]).losses)

    def _again(self, parts: list[Any]) -> list[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
        return [(self._forward(b["inputs"], b["targets"]).losses, b["counts"]) for b in parts]

    def _forward(self, inputs: Any, targets: Any) -> Any:
        # DDP's own forward where a backward follows that it is to reduce
        model = self.model if torch.is_grad_enabled() else self.inner
        output = model(inputs, targets)
        if self.sharded and self.number == 0:
            sharding.check_output(output)
        return output

    def check_finite(self, losses: Mapping[str, Mean], epoch: int) -> None:
        """Raise FloatingPointError where a task's loss of this epoch has left the finite numbers."""
        # a scaler skips the step of a loss that is not finite: the run is lost only if there is no other
        skips = self.accelerator.scaler is not None
        bad = {name: float(mean.first) for name, mean in losses.items() if not (skips and int(mean.weight))}
        first = min(bad.values(), default=math.inf)
        if first < math.inf:
            names = " and ".join(repr(name) for name in bad if bad[name] == first)
            clip = "set clip" if self.settings.clip is None else f"a clip below {self.settings.clip}"
            start = (epoch - 1) * self.per_epoch
            raise FloatingPointError(
                f"the loss of task {names} is NaN or infinite from step {first:.0f} on (epoch {epoch}: steps "
                f"{start + 1} to {start + self.per_epoch}): try an lr below {self.settings.lr}, {clip}, "
                "or look for NaN or huge values in the inputs and labels"
            )
