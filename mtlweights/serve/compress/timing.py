"""Processor time of an answer, of several models in turn, so that a busy machine slows all alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import NamedTuple

from ..samples import sample
from ..trained import TrainedModel

BATCH = 32
ROUNDS = 15


class Latency(NamedTuple):
    """Milliseconds of one thread: of one example alone, and of one in a batch."""

    alone: float
    batched: float


def latencies(models: Mapping[str, TrainedModel], examples: list[object] | None = None) -> dict[str, Latency]:
    """Medians over `ROUNDS` rounds, from the example to the answer; of all models on the same examples."""
    first = next(iter(models.values()))
    given = (examples or sample(first, 2 * BATCH))[: 2 * BATCH]
    times: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in models}
    for turn in range(ROUNDS + 1):
        for name, model in models.items():
            alone = _seconds(model, given[turn % len(given) :][:1]), _seconds(model, given, BATCH)
            if turn:  # the first round is slow
                times[name][0].append(alone[0])
                times[name][1].append(alone[1] / len(given))
    return {name: Latency(*(1e3 * statistics.median(own) for own in both)) for name, both in times.items()}


def _seconds(model: TrainedModel, given: list[object], batch: int = 1) -> float:
    start = time.process_time()
    model.predict(given, batch)
    return time.process_time() - start
