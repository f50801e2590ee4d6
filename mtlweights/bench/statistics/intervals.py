"""Intervals and p-values of a mean of n paired differences, one a seed.

Two designs. ``fixed``: Student's t, for a number of seeds chosen beforehand. ``until-resolved``: an interval
that holds at every n at once, so that one may look after each seed and stop when one likes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

#: c^2, the precision of the prior of the effect size: N(0, 1 / c^2) standard deviations
PRECISION = 1.0
#: below this part of the largest value, a spread or a mean is rounding
ROUNDING = 1e-12
MOST_SEEDS = 10_000


@dataclass(frozen=True)
class Interval:
    """An interval of a mean, and the p-value of the mean being 0. Infinite ends: too few values."""

    mean: float
    low: float
    high: float
    p: float
    n: int

    @property
    def half(self) -> float:
        """Half of the width."""
        return (self.high - self.low) / 2


def fixed_t(values: Sequence[float], alpha: float = 0.05) -> Interval:
    """Student's t interval at level 1 - ``alpha``, valid for an n that was chosen beforehand.

    Values that do not differ have an interval of no width and p = 1: alike seeds tell nothing of chance.

    Raises:
        ValueError: no value, one that is not finite, or ``alpha`` outside (0, 1).
    """
    from scipy.special import stdtr

    n, mean, spread = _moments(values, alpha)
    p = 1.0
    if n > 1 and spread > 0:
        p = 2 * float(stdtr(n - 1, -abs(mean) / math.sqrt(spread / (n - 1) / n)))
    half = _fixed_half(n, spread, alpha)
    return Interval(mean, mean - half, mean + half, p, n)


def _fixed_half(n: int, spread: float, alpha: float) -> float:
    from scipy.special import stdtrit

    return math.inf if n < 2 else float(stdtrit(n - 1, 1 - alpha / 2)) * math.sqrt(spread / (n - 1) / n)


def anytime_t(values: Sequence[float], alpha: float = 0.05) -> Interval:
    """The interval that holds for all n at once with probability 1 - ``alpha``, and its anytime-valid p.

    For normal values x of unknown variance: the likelihood ratio of x / |x_1|, which does not depend on the
    variance, with the effect size mixed over N(0, 1 / c^2), is

        E_n(m) = sqrt(c^2 / (n + c^2)) (V / (V - S^2 / (n + c^2)))^(n / 2)

    with S = sum(x - m) and V = sum((x - m)^2), a martingale at the true mean m; the interval is
    {m: E_n(m) < 1 / alpha} (Ville's inequality), p is min(1, 1 / E_n(0)). Lai 1976; Wang and Ramdas 2023
    (arXiv 2310.03722), section 4, with their c. The likelihood is normal; ``benchmarks/proof`` measures what
    heavy tails and skewness do to it.

    Raises:
        ValueError: as :func:`fixed_t`.
    """
    n, mean, spread = _moments(values, alpha)
    p = 1.0
    if n > 1 and spread > 0:
        squares, shrink = n * mean**2, PRECISION / (n + PRECISION)
        ratio = (spread + squares) / (spread + squares * shrink)
        p = min(1.0, math.exp(-(0.5 * math.log(shrink) + n / 2 * math.log(ratio))))
    half = _anytime_half(n, spread, alpha)
    return Interval(mean, mean - half, mean + half, p, n)


def _anytime_half(n: int, spread: float, alpha: float) -> float:
    """Of {m: E_n(m) < 1 / alpha}: infinite while no mean could be excluded, whatever the values."""
    shrink = PRECISION / (n + PRECISION)
    log_k = (-math.log(shrink) - 2 * math.log(alpha)) / n
    if n < 2 or log_k >= -math.log(shrink):
        return math.inf if spread > 0 or n < 2 else 0.0
    k = math.exp(log_k)
    return math.sqrt((k - 1) * spread / (n * (1 - k * shrink)))


#: how many seeds: chosen beforehand, or as many as it takes
DESIGNS: dict[str, Callable[[Sequence[float], float], Interval]] = {
    "fixed": fixed_t,
    "until-resolved": anytime_t,
}
_HALVES = {"fixed": _fixed_half, "until-resolved": _anytime_half}


def seeds_needed(design: str, mean: float, sd: float, worth: float, alpha: float) -> int | None:
    """The least n at which a mean and a standard deviation like these would be resolved.

    Resolved: the half width is below ``|mean|``, or below ``worth - |mean|``. None: beyond `MOST_SEEDS`.
    """
    aim = max(abs(mean), worth - abs(mean))

    def enough(n: int) -> bool:
        return _HALVES[design](n, (n - 1) * sd**2, alpha) < aim

    if not enough(MOST_SEEDS):
        return None
    low, high = 1, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _moments(values: Sequence[float], alpha: float) -> tuple[int, float, float]:
    """n, mean, and the sum of squares about it, exactly 0 where values differ by rounding alone."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha should be in (0, 1), found {alpha!r}.")
    if len(values) == 0 or not all(map(math.isfinite, values)):
        raise ValueError(f"expected at least one finite value, found {list(values)!r}.")
    mean, largest = fmean(values), max(map(abs, values))
    if abs(mean) <= ROUNDING * largest:
        mean = 0.0
    spread = math.fsum((value - mean) ** 2 for value in values)
    return len(values), mean, 0.0 if spread <= len(values) * (ROUNDING * largest) ** 2 else spread
