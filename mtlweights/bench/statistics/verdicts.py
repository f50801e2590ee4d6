"""Verdicts on several arms at once: better, worse, equal, or not resolved yet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import stdev

from .intervals import DESIGNS, Interval, seeds_needed

VERDICTS = ("better", "equal", "worse", "unresolved")
FEWEST_SEEDS = 3  #: of a verdict


@dataclass(frozen=True)
class Verdict:
    """What is known of one arm's mean difference to the reference.

    ``interval`` has the level that Holm's procedure gives this arm, ``p`` its adjusted p-value.
    """

    interval: Interval
    p: float
    verdict: str  #: of `VERDICTS`
    more_seeds: int | None  #: that would resolve it at this mean and spread; 0 resolved, None out of reach


def judge(
    differences: Mapping[str, Sequence[float]], worth: float, *, design: str = "fixed", alpha: float = 0.05
) -> dict[str, Verdict]:
    """Judge every arm by its differences to one reference, one a seed; positive is better.

    Holm (1979) over the arms: with p-values in ascending order the k-th of m is judged at
    alpha / (m - k + 1), and none after the first that fails is better or worse. Of comparisons without any
    difference at most ``alpha`` have a *better* or *worse* at all. An arm's interval is at its own level.

    - *equal*: the interval lies within (-``worth``, ``worth``), the smallest difference that matters;
    - *better*, *worse*: it leaves out 0, the p-value is rejected, and it is not *equal*;
    - *unresolved*: anything else, fewer than `FEWEST_SEEDS`, and differences all the same but not 0;
      ``more_seeds`` says how many more of the same kind would tell.

    Raises:
        ValueError: no such design, ``worth`` is negative, or values are refused as in `fixed_t`.
    """
    if design not in DESIGNS:
        raise ValueError(f"design should be one of {', '.join(DESIGNS)}, found {design!r}.")
    if not 0 <= worth < math.inf:
        raise ValueError(f"worth should be at least 0 and finite, found {worth!r}.")
    interval, m = DESIGNS[design], len(differences)
    first = {arm: interval(values, alpha).p for arm, values in differences.items()}
    found: dict[str, Verdict] = {}
    adjusted, rejecting = 0.0, True
    for k, arm in enumerate(sorted(first, key=lambda arm: first[arm])):
        level = alpha / (m - k)
        adjusted = max(adjusted, min(1.0, (m - k) * first[arm]))
        rejecting = rejecting and adjusted <= alpha
        own = interval(differences[arm], level)
        verdict = _verdict(own, worth, rejecting)
        more = 0 if verdict != "unresolved" else _more(differences[arm], own, worth, level, design)
        found[arm] = Verdict(own, adjusted, verdict, more)
    return {arm: found[arm] for arm in differences}


def _verdict(own: Interval, worth: float, rejected: bool) -> str:
    if own.low == own.high:
        return "equal" if own.mean == 0 else "unresolved"
    if own.n < FEWEST_SEEDS:
        return "unresolved"
    if -worth < own.low and own.high < worth:
        return "equal"
    if rejected and own.low > 0:
        return "better"
    return "worse" if rejected and own.high < 0 else "unresolved"


def _more(values: Sequence[float], own: Interval, worth: float, level: float, design: str) -> int | None:
    if len(values) < 2:
        return None
    needed = seeds_needed(design, own.mean, stdev(values), worth, level)
    return None if needed is None else max(1, needed - own.n)
