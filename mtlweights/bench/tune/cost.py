"""What a strategy costs beside plain training of the same model: time of a step, peak memory of training."""

from __future__ import annotations

import itertools
import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from ... import problems
from ...problems import Problem
from ...train.batches import training
from ...train.scoring import to_device
from ...train.settings import resolve_device
from ..run import make_balancer, seed_everything
from ..runspec import RunSpec
from ..worker import FIRST_STEP, PRELOADED
from .space import EQUAL

ROUNDS = 6  #: interleaved steps of each, to measure time; the first two warm up
STEPS = 3  #: to measure memory: in the second one the optimizer's state is there too
_STATUS, _REFERENCES = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Cost:
    """Ratios to plain training of the same model on the same batches; once per model and strategy."""

    def __init__(self, problem: Callable[[str], Problem], rounds: int = ROUNDS) -> None:
        self.problem, self.rounds = problem, rounds
        self._known: dict[tuple[Any, ...], float] = {}

    def ratio(self, spec: RunSpec, what: str, against: RunSpec | None = None) -> float:
        """``"time"`` of a step (of the processor where there is no GPU), or peak ``"memory"`` of training.

        ``against``: what is measured beside it, by default equal weights.

        Raises:
            MemoryError: the process that measures it was killed.
        """
        plain = against or replace(spec, strategy=EQUAL)
        if what == "memory":
            return self._once(spec, lambda: peak(spec)) / self._once(plain, lambda: peak(plain))
        return self._once(spec, lambda: self._time(spec, plain), plain)

    def _once(self, spec: RunSpec, measure: Callable[[], float], beside: RunSpec | None = None) -> float:
        key = tuple((s.problem, s.strategy, s.settings.batch_size) for s in (spec, beside) if s is not None)
        if key not in self._known:
            with _generators_kept():
                self._known[key] = measure()
        return self._known[key]

    def _time(self, spec: RunSpec, plain: RunSpec) -> float:
        both, device = (spec, plain), resolve_device(spec.settings.device)
        loaded = [self.problem(which.problem) for which in both]
        steps = [_stepper(s, p, p.build(), device) for s, p in zip(both, loaded, strict=True)]
        batches = [_batches(s, p) for s, p in zip(both, loaded, strict=True)]
        found: tuple[list[float], ...] = ([], [])
        for same in itertools.islice(zip(*batches, strict=False), self.rounds):
            for kept, step, batch in zip(found, steps, same, strict=True):
                kept.append(step(batch))
        ours, theirs = (median(kept[2:]) for kept in found)
        return ours / max(theirs, 1e-9)


def check_memory(device: torch.device) -> None:
    """Refuse to measure memory where it cannot be.

    Raises:
        ValueError: neither CUDA nor Linux.
    """
    if device.type != "cuda" and not _REFERENCES.exists():
        raise ValueError("a limit on memory needs a CUDA GPU or Linux, where a process's peak can be read.")


def peak(spec: RunSpec) -> float:
    """Bytes that training takes at most, from its first step on, in a process of its own.

    On a GPU what torch allocates there; else the whole process, interpreter and data included: what a machine
    has to have.

    Raises:
        MemoryError: the process was killed, as it is when there is not enough.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context: Any = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload([PRELOADED, *FIRST_STEP])
    with ProcessPoolExecutor(1, mp_context=context, initializer=_leave_interrupts) as pool:
        try:
            return float(pool.submit(_peak_here, spec, torch.get_num_threads()).result())
        except BrokenProcessPool:
            raise MemoryError(f"the process that measured the memory of {spec.strategy} was killed") from None


def _leave_interrupts() -> None:
    """Ctrl-C is the parent's."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _peak_here(spec: RunSpec, threads: int) -> float:
    torch.set_num_threads(threads)
    problem, device = problems.load(spec.problem), resolve_device(spec.settings.device)
    seed_everything(spec.seed)
    model = problem.build()
    step, optimizer = _stepper(spec, problem, model, device), torch.optim.AdamW(model.parameters())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        _REFERENCES.write_text("5")  # the peak starts anew: reading the data may have taken more
    for batch in itertools.islice(_batches(spec, problem), STEPS):
        step(batch, optimizer)
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated())
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024.0 * int(line.split()[1])


def _batches(spec: RunSpec, problem: Problem) -> Iterator[Any]:
    generator = torch.Generator().manual_seed(0)
    return itertools.cycle(training(problem, spec.settings.batch_size, 1, generator))


def _stepper(spec: RunSpec, problem: Problem, model: nn.Module, device: torch.device) -> Callable[..., float]:
    """One forward and backward pass of a strategy on a batch: its seconds."""
    seed_everything(spec.seed)
    model = model.to(device).train()
    balancer = make_balancer(spec.strategy, problem.tasks, model, spec.seed)
    cuda = device.type == "cuda"

    def step(batch: Any, optimizer: torch.optim.Optimizer | None = None) -> float:
        batch = to_device(batch, device)
        if cuda:
            torch.cuda.synchronize()
        start = time.perf_counter() if cuda else time.process_time()
        if "validate" in balancer.hooks:
            balancer.validate(lambda: model(batch["inputs"], batch["targets"]).losses)
        balancer(model(batch["inputs"], batch["targets"]).losses, batch["counts"]).backward()
        if cuda:
            torch.cuda.synchronize()
        seconds = (time.perf_counter() if cuda else time.process_time()) - start
        if optimizer is not None:
            optimizer.step()
        model.zero_grad()
        return seconds

    return step


@contextmanager
def _generators_kept() -> Iterator[None]:
    from ...train.checkpoint import rng_state, set_rng_state

    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)
