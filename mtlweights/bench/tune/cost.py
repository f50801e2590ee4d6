"""What a step of a strategy costs beside plain training of the same model: time and memory."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from ...problems import Problem
from ...train.batches import training
from ...train.scoring import to_device
from ...train.settings import resolve_device
from ..run import make_balancer, seed_everything
from ..runspec import RunSpec
from .space import EQUAL

ROUNDS = 6  #: interleaved steps of each; the first two warm up


class Cost:
    """Ratios to plain training, by interleaved steps on the same batches; once per model and strategy."""

    def __init__(self, problem: Callable[[str], Problem], rounds: int = ROUNDS) -> None:
        self.problem, self.rounds = problem, rounds
        self._known: dict[tuple[Any, ...], dict[str, float]] = {}

    def ratio(self, spec: RunSpec, what: str, against: RunSpec | None = None) -> float:
        """``"time"`` of a step (of the processor where there is no GPU) or peak ``"memory"`` of a GPU.

        ``against``: what is measured beside it, by default equal weights.
        """
        device, plain = resolve_device(spec.settings.device), against or replace(spec, strategy=EQUAL)
        key = (spec.problem, spec.strategy, spec.settings.batch_size, plain.problem, plain.strategy)
        if key not in self._known:
            with _generators_kept():
                self._known[key] = self._measure(spec, plain, device)
        return self._known[key][what]

    def _measure(self, spec: RunSpec, plain: RunSpec, device: torch.device) -> dict[str, float]:
        both = [(which, self.problem(which.problem)) for which in (spec, plain)]
        size = spec.settings.batch_size
        batches = [training(problem, size, 1, torch.Generator().manual_seed(0)) for _, problem in both]
        steps = [_stepper(which, problem, device) for which, problem in both]
        found: tuple[list[dict[str, float]], ...] = ([], [])
        for same in itertools.islice(zip(*map(itertools.cycle, batches), strict=False), self.rounds):
            for kept, step, batch in zip(found, steps, same, strict=True):
                kept.append(step(batch))
        ours, theirs = (
            {what: median(step[what] for step in kept[2:]) for what in ("time", "memory")} for kept in found
        )
        return {what: ours[what] / max(theirs[what], 1e-9) for what in ours}


def _stepper(spec: RunSpec, problem: Problem, device: torch.device) -> Callable[[Any], dict[str, float]]:
    """One forward and backward pass of a strategy on a batch, measured."""
    seed_everything(spec.seed)
    model = problem.build().to(device).train()
    balancer = make_balancer(spec.strategy, problem.tasks, model, spec.seed)
    cuda = device.type == "cuda"

    def step(batch: Any) -> dict[str, float]:
        batch = to_device(batch, device)
        if cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter() if cuda else time.process_time()
        if "validate" in balancer.hooks:
            balancer.validate(lambda: model(batch["inputs"], batch["targets"]).losses)
        balancer(model(batch["inputs"], batch["targets"]).losses, batch["counts"]).backward()
        if cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() if cuda else time.process_time()) - start
        model.zero_grad()
        return {"time": seconds, "memory": float(torch.cuda.max_memory_allocated() if cuda else 0)}

    return step


@contextmanager
def _generators_kept() -> Iterator[None]:
    from ...train.checkpoint import rng_state, set_rng_state

    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
