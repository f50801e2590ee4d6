"""Averages across problems: few problems, few seeds each, and nothing in common but the arms."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

FEWEST_BLOCKS = 15  #: problems from which on ranks may be compared


def interquartile_mean(
    scores: Mapping[str, Sequence[float]], *, alpha: float = 0.05, draws: int = 2_000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of the middle half of all runs' scores, with a stratified bootstrap interval.

    Seeds are drawn anew within each problem (Agarwal et al. 2021, section 4.1), so a problem of few seeds
    widens the interval and does not vanish.

    Args:
        scores: problem -> score of each seed.
        alpha: 1 - level of the percentile interval.
        draws: bootstrap samples.
        seed: of the draws.

    Returns:
        Estimate, low, high.

    Raises:
        ValueError: no problem, or one without a score.
    """
    from scipy.stats import trim_mean

    if not scores or not all(len(values) for values in scores.values()):
        raise ValueError("expected at least one score of each of one or more problems.")
    rng = np.random.default_rng(seed)
    parts = [np.asarray(values, dtype=float) for values in scores.values()]
    drawn = np.concatenate([part[rng.integers(len(part), size=(draws, len(part)))] for part in parts], axis=1)
    low, high = np.quantile(trim_mean(drawn, 0.25, axis=1), [alpha / 2, 1 - alpha / 2])
    return float(trim_mean(np.concatenate(parts), 0.25)), float(low), float(high)


def ranks(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean rank of each of k arms over n problems [n, k], 1 the best (largest score); ties share a rank."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-table, axis=1).mean(0))


def critical_difference(n: int, k: int, alpha: float = 0.05) -> float | None:
    """The difference of mean ranks that Nemenyi's test takes for one, with k arms on n problems.

    q_alpha sqrt(k (k + 1) / (6 n)), q the studentised range / sqrt(2) (Demsar 2006, section 3.2.2).
    None below `FEWEST_BLOCKS` problems, where it says nothing: 8 ranks for 12 arms on 4 problems.
    """
    from scipy.stats import studentized_range

    if n < FEWEST_BLOCKS:
        return None
    quantile = float(studentized_range.ppf(1 - alpha, k, np.inf)) / math.sqrt(2)
    return quantile * math.sqrt(k * (k + 1) / (6 * n))
