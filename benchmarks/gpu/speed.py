"""What a step costs on the device: against plain training, the bare passes, and the peers."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import memory
import numpy as np
import torch
from arms import EVERY, LOSS_BASED, all_arms, that_run
from encoder import in_bf16, transformer
from models import MODELS, QUICK, Problem, on
from records import Failed, Log
from timing import Settings, Times, measure, quartiles

LEAST, MOST, PASSES = 1.0, 1.02, 1.03  #: of peers / ours; loss-based / plain; Gramian / floor
TINY: dict[str, Any] = {"width": 8, "layers": 1, "heads": 2, "vocabulary": 50, "shape": (2, 3)}


@dataclass
class Column:
    """A model at a size for GPUs, and what is asked of it."""

    name: str
    model: str
    n_tasks: int
    sizes: dict[str, Any]
    together: int  #: steps timed end to end
    judged: tuple[str, ...] = ("Gramian", "peers")
    kind: str = "fp32"  #: or bf16, tf32


COLUMNS = [
    Column("transformer, 109 M, bf16, T = 2", "large", 2, {}, 4, ("loss", "Gramian", "peers"), "bf16"),
    Column("transformer, 109 M, TF32, T = 2", "large", 2, {}, 4, ("loss", "Gramian", "peers"), "tf32"),
    Column("transformer, 109 M, bf16, T = 8", "large", 8, {}, 1, ("loss", "Gramian", "peers"), "bf16"),
    Column("MLP, 4 x 4096, batch 1024, T = 2", "MLP", 2, {"width": 4096, "batch": 1024}, 8),
    Column("MLP, 4 x 4096, batch 1024, T = 10", "MLP", 10, {"width": 4096, "batch": 1024}, 2),
    Column("BiLSTM, 2 x 512, batch 64 x 64, T = 2", "BiLSTM", 2, {"width": 512, "shape": (64, 64)}, 4),
    Column("recommender, 1 M items x 64, batch 4096 x 50, T = 8", "recommender", 8,
           {"items": 1_000_000, "shape": (4096, 50)}, 4),
    Column("MLP of step.md, 4 x 1024, batch 64, T = 2: launches alone", "MLP", 2, {}, 8, ()),
]  # fmt: skip


def run(names: list[str], log: Log) -> None:
    """Times of every column, then memory at T = 8."""
    device = torch.device(log.device)
    seconds = 10.0 if device.type == "cuda" else 0.1
    for column in COLUMNS:
        log.check(column.name, "times", lambda c=column: _times(c, device, seconds, log))
        _free(device)
    for column in (COLUMNS[2], *COLUMNS[5:7]):
        log.check(f"memory: {column.name}", "measured", lambda c=column: _memory(c, device, log))
        _free(device)


def build(column: Column, device: torch.device, n_tasks: int) -> Problem:
    """The same weights and batch every time; tiny on a CPU."""
    torch.manual_seed(0)
    quick = device.type == "cpu"
    make: Callable[..., Problem] = transformer if column.model == "large" else MODELS[column.model]
    small = TINY if column.model == "large" else QUICK[column.model]
    problem = on(make(n_tasks, **(small if quick else column.sizes)), device)
    return in_bf16(problem) if column.kind == "bf16" else problem


@contextmanager
def _precision(kind: str) -> Iterator[None]:
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision("highest")


def _times(column: Column, device: torch.device, seconds: float, log: Log) -> str:
    """A line per arm, judged where something is asked of it."""
    with _precision(column.kind):
        problem = build(column, device, column.n_tasks)
        together = 1 if device.type == "cpu" else column.together
        settings = Settings(device, device.type == "cpu", seconds, together)
        blocks = max(1, EVERY // together) if column.n_tasks == 2 else 1
        arms, errors = that_run(all_arms(problem))
        times = measure(arms, settings, blocks)
    for name, error in errors.items():
        log.add(column.name, name, None, "does not run", error)
    for name in ("plain", "floor"):
        log.add(column.name, f"{name}, ms", None, f"{1e3 * np.median(times[name]):.2f}")
    for label, arm, reference, least, most in _lines(column, times):
        middle, low, high = quartiles(times, arm, reference, blocks if arm.startswith("every") else 1)
        value = f"{middle:.3f} ({low:.3f} to {high:.3f})"
        ok = None if (least is None and most is None) or device.type == "cpu" else True
        missed = (most is not None and middle > most) or (least is not None and middle < least)
        if ok and missed:
            target = f"at most {most}" if most is not None else f"at least {least}"
            log.add(column.name, label, False, value, f"target: {target}")
        else:
            log.add(column.name, label, ok, value)
    return f"{len(times['plain'])} rounds"


def _lines(column: Column, times: Times) -> Iterator[tuple[str, str, str, float | None, float | None]]:
    """Label, arm, what it is divided by, the least and the most allowed."""
    most = MOST if "loss" in column.judged else None
    passes = PASSES if "Gramian" in column.judged else None
    least = LEAST if "peers" in column.judged else None
    for arm in times:
        if arm in LOSS_BASED:
            yield f"{arm} / plain", arm, "plain", None, most
        elif arm.startswith("torchjd"):
            yield f"{arm} / ours", arm, arm.split(",")[0].split()[1], least, None
        elif arm.startswith("libmtl"):
            yield f"{arm} / ours", arm, "pcgrad", least, None
        elif arm.startswith(("every", "famo,")) or arm.endswith("features"):
            yield f"{arm} / plain", arm, "plain", None, None
        elif arm in ("pcgrad", "cagrad", "pcgrad, call"):
            yield f"{arm} / floor", arm, "floor", None, passes
        elif arm not in ("plain", "floor"):
            yield f"{arm} / floor", arm, "floor", None, None


def _memory(column: Column, device: torch.device, log: Log) -> str:
    """Peaks at T = 8, above plain."""
    problem = build(column, device, 8)
    for label, cell in memory.column(problem, device).items():
        log.add(f"memory: {column.name}", label, None, cell)
    if device.type == "cuda" and problem.shared_elements < 1_000_000:
        raise Failed(f"only {problem.shared_elements} shared parameters: not the model that was meant")
    return f"{problem.shared_elements / 1e6:.0f} M shared parameters"


def _free(device: torch.device) -> None:
    gc.unfreeze()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
