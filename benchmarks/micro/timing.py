"""Seconds per step, of steps that run interleaved; ratios are taken within a round."""

from __future__ import annotations

import gc
import random
import time
from dataclasses import dataclass

import numpy as np
import torch
from arms import Step

Times = dict[str, list[float]]


@dataclass
class Settings:
    """Of a measurement."""

    device: torch.device
    quick: bool  #: tiny models, one block of rounds
    seconds: float  #: spent on one column
    together: int = 1  #: steps that are timed end to end: a GPU's host runs ahead of it

    @property
    def by_cpu_time(self) -> bool:
        """With one thread on the CPU, time that other programs took is not counted."""
        return self.device.type == "cpu" and torch.get_num_threads() == 1


def measure(arms: dict[str, Step], settings: Settings, block: int = 1) -> Times:
    """Seconds per step, in rounds of every arm in a fresh order; a multiple of ``block`` rounds."""
    for _ in range(2):
        start = time.perf_counter()
        for step in arms.values():
            _seconds(step, settings)
        whole = time.perf_counter() - start
    rounds = block * max(1, round(float(np.clip(settings.seconds / whole, 5, 40)) / block))
    gc.collect()
    gc.freeze()  # else the collector goes through all modules, in whichever step it is due
    order, draw = list(arms), random.Random(0)
    times: Times = {name: [] for name in arms}
    for _ in range(block if settings.quick else rounds):
        draw.shuffle(order)
        for name in order:
            times[name].append(_seconds(arms[name], settings))
    return times


def _seconds(step: Step, settings: Settings) -> float:
    """Of one step, the mean of those timed together: by events on a GPU, from an idle queue on."""
    if settings.device.type == "cuda":
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        first.record()
        for _ in range(settings.together):
            step()
        last.record()
        last.synchronize()
        return first.elapsed_time(last) / 1e3 / settings.together
    clock = time.process_time if settings.by_cpu_time else time.perf_counter
    start = clock()
    for _ in range(settings.together):
        step()
    return (clock() - start) / settings.together


def quartiles(times: Times, arm: str, reference: str, block: int = 1) -> tuple[float, float, float]:
    """Median, lower and upper quartile of the ratios within a round, or within ``block`` rounds' sums."""
    above, below = (np.reshape(times[k], (-1, block)).sum(1) for k in (arm, reference))
    low, middle, high = np.quantile(above / below, (0.25, 0.5, 0.75))
    return float(middle), float(low), float(high)


def ratio(times: Times, arm: str, reference: str, block: int = 1) -> str:
    """The quartiles as a cell, "-" for an arm that did not run."""
    if arm not in times:
        return "-"
    return "{:.2f} ({:.2f} to {:.2f})".format(*quartiles(times, arm, reference, block))


def extra_ms(times: Times, arm: str, reference: str) -> str:
    """Median of the differences within a round."""
    return f"{1e3 * np.median(np.subtract(times[arm], times[reference])):+.2f} ms"
