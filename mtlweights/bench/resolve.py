"""Seeds are added where they are still needed: until every arm is resolved, or there are enough."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .protocol import Protocol
from .report.comparison import compare
from .report.inference import DELTA
from .schedule import run_suite
from .selection import labelled, read_choices
from .suite import Suite

FIRST = 3  #: seeds of every arm before anything is judged
EACH = 2  #: seeds added at a time


def run_until_resolved(
    suite: Suite, folder: str | Path, *, max_seeds: int = 40, progress: bool = True, **options: Any
) -> list[dict[str, Any]]:
    """Run a suite with as many seeds as it takes: only arms that are not resolved get more.

    After each round every arm is judged against equal weights by Δm, with intervals that hold whenever one
    looks (`statistics.anytime_t`), so stopping by what they say does not spoil them. Equal weights and
    single-task training go on as long as any arm does. Run again, it goes on where it stopped.

    Args:
        max_seeds: of any arm; what is not resolved by then stays so.
        options: of `run_suite`.

    Returns:
        The results of all seeds so far.

    Raises:
        ValueError: the suite lacks the arm ``equal``, or ``max_seeds`` is below `FIRST`; and as `run_suite`.
    """
    if suite.axis is not None:
        raise ValueError("running until resolved compares strategies: leave the axis out, or give a budget.")
    if "equal" not in suite.strategies:
        raise ValueError("running until resolved judges every arm against equal: add it to the strategies.")
    if max_seeds < FIRST:
        raise ValueError(f"max_seeds should be at least {FIRST}, found {max_seeds}.")
    protocol = Protocol(suite.worth, design="until-resolved")
    out = []
    for name in suite.problems:
        part = suite.on(name)
        found = run_suite(
            replace(part, seeds=tuple(range(FIRST))), folder, progress=progress, protocol=protocol, **options
        )
        n = FIRST
        while (open_arms := unresolved(_judged(found, folder, part), protocol)) and n < max_seeds:
            seeds = tuple(range(n, min(n + EACH, max_seeds)))
            if progress:
                print(f"{name}: {n} seeds, unresolved: {', '.join(open_arms)}", file=sys.stderr)
            more = replace(part, strategies=("equal", *open_arms), seeds=seeds, front=0)
            found += run_suite(more, folder, progress=progress, protocol=protocol, **options)
            n += len(seeds)
        out += found
    return out


def _judged(found: list[dict[str, Any]], folder: str | Path, suite: Suite) -> list[Mapping[str, Any]]:
    """The results as arms of the suite's budget, if it has one."""
    (name,) = suite.problems
    budget = suite.budget_of(name)
    return labelled(found, [choice for choice in read_choices(folder) if choice.budget == budget])


def unresolved(results: Sequence[Mapping[str, Any]], protocol: Protocol) -> list[str]:
    """The arms on one problem whose Δm against equal weights is not resolved yet."""
    (comparison,) = compare(results, protocol)
    arms = [row.arm for row in comparison.rows if row.arm not in ("equal", "single")]
    found = {arm: comparison.verdict(arm, "equal", DELTA) for arm in arms}
    return [arm for arm, v in found.items() if v is not None and v.verdict == "unresolved"]
