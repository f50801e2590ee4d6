"""The reference front: static weights over the whole simplex, as points for the arms to go beyond."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from .budget import Arm
from .selection import Choice

NAME = "front"
SEEDS = 3  #: of every point: the first of those that judge an arm
MOST = 200  #: points


def is_front(arm: str) -> bool:
    """Whether an arm is a point of the front, which is shown and not judged."""
    return arm.partition(":")[0] == NAME


def static_weights(tasks: int, points: int) -> list[tuple[float, ...]]:
    """``points`` weights inside the simplex, each of sum T as equal weights are.

    Two tasks: evenly spaced. More: the spacings of a sorted Halton sequence in T - 1 dimensions, which are
    spread evenly over the simplex.
    """
    if tasks == 2:
        cuts = np.arange(1, points + 1)[:, None] / (points + 1)
    else:
        from scipy.stats import qmc

        cuts = np.sort(qmc.Halton(tasks - 1, scramble=False).random(points + 1)[1:], axis=1)
    shares = np.diff(cuts, axis=1, prepend=0.0, append=1.0)
    return [tuple(float(f"{tasks * share:.4g}") for share in row) for row in shares]


def front_specs(tasks: int, points: int) -> tuple[str, ...]:
    """`static_weights` as strategy specs."""
    rows = static_weights(tasks, points) if points else ()
    return tuple(f"fixed:alpha=[{','.join(f'{w:g}' for w in row)}]" for row in rows)


def front_arms(arms: Sequence[Arm], choices: Sequence[Choice], specs: Sequence[str]) -> list[Arm]:
    """Static weights with what equal weights chose for the rest; none where equal weights are not an arm.

    Args:
        arms: of one problem.
        choices: of these arms, in order.
        specs: of the weights.
    """
    found = []
    for arm, choice in zip(arms, choices, strict=True):
        if arm.name == "equal" and arm.only is None:
            for spec in specs:
                run = replace(arm.trials[choice.chosen], strategy=spec)
                name = spec.replace("fixed", NAME, 1)
                found.append(replace(arm, name=name, trials=(run,), seeds=arm.seeds[:SEEDS]))
    return found
