"""The test set's own uncertainty of a difference: how far it moves when the test examples are drawn again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..resampling import RESAMPLED
from ..runspec import SINGLE

Result = Mapping[str, Any]
Draws = dict[str, dict[int, NDArray[np.float64]]]  #: task -> seed -> the metric in every draw, + is better
LEVEL = 1.96  #: standard deviations of a 95 % interval


def halves(
    by_arm: Mapping[str, Sequence[Result]], signs: Mapping[str, int], against: Sequence[str]
) -> dict[tuple[str, str], float]:
    """(arm, reference) -> half width of the 95 % interval of Δm over draws of the test examples.

    The seeds are those both have; every run sees the same draws. A pair of which something is missing is left
    out.

    Args:
        by_arm: arm -> its results.
        signs: task -> 1 where higher is better, -1 where lower is.
        against: the references.
    """
    drawn = {arm: _draws(results, signs) for arm, results in by_arm.items()}
    alone = drawn.get(SINGLE, {})
    found = {}
    for reference in against:
        for arm in by_arm:
            values = [_relative(drawn[arm], drawn.get(reference, {}), alone, task) for task in signs]
            known = [value for value in values if value is not None]
            if arm != reference and known and len(known) == len(signs):
                found[arm, reference] = LEVEL * float(np.mean(known, axis=0).std(ddof=1))
    return found


def _draws(results: Iterable[Result], signs: Mapping[str, int]) -> Draws:
    found: Draws = {}
    for result in results:
        for task, values in (result.get(RESAMPLED) or {}).items():
            if task in signs:
                found.setdefault(task, {})[result["seed"]] = signs[task] * np.asarray(values, dtype=float)
    return found


def _relative(own: Draws, other: Draws, alone: Draws, task: str) -> NDArray[np.float64] | None:
    """The mean difference on a task in every draw, in per cent of single-task training."""
    sides = [draws.get(task, {}) for draws in (own, other, alone)]
    seeds = sorted(set.intersection(*map(set, sides)))
    shapes = {side[seed].shape for side in sides for seed in seeds}
    if not seeds or len(shapes) != 1:
        return None
    ours, theirs, base = (np.mean([side[seed] for seed in seeds], axis=0) for side in sides)
    return np.asarray(100 * (ours - theirs) / np.maximum(np.abs(base), 1e-12))
