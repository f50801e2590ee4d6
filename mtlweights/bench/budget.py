"""How much every arm may try before it is judged: its trials, their values, and the seeds that judge it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..problems import scales
from ..specs import suggest
from ..strategies.space import read_space
from ..train import Settings
from ..train.settings import space as loop_space
from .axes import Axis
from .runspec import SINGLE, RunSpec, spec_key

#: arms that are always there: without them a gain may be one of the tuning, or of any weights at all
ALWAYS = ("equal", "fixed", "random", "scale_invariant")
SEARCHED = ("lr",)  #: of the loop, by every arm
TRIAL = -1  #: the repetition whose seed the trials have
GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Budget:
    """Trials of every arm, single-task training and equal weights included, and fresh seeds of its best."""

    name: str
    trials: int
    seeds: int


BUDGETS = {
    budget.name: budget
    for budget in (
        Budget("smoke", 1, 2),
        Budget("default", 1, 10),
        Budget("tuned8", 8, 10),
        Budget("tuned16", 16, 10),
        Budget("tuned54", 54, 10),
    )
}


def budget_of(name: str) -> Budget:
    """A budget by its name.

    Raises:
        ValueError: there is none of that name.
    """
    if not isinstance(name, str) or name not in BUDGETS:
        raise ValueError(f"there is no budget {name!r}; {suggest(str(name), BUDGETS)}")
    return BUDGETS[name]


def seed_of(problem: str, repetition: int) -> int:
    """The seed of a repetition on a problem: the same for every arm, whichever arms there are.

    A problem whose losses are multiplied has those of the problem as it is.
    """
    return int(_uniform(spec_key(scales.split(problem)[0]), repetition) * 2**31)


@dataclass(frozen=True)
class Arm:
    """One row of a comparison under a budget; single-task training is one per task.

    Attributes:
        only: the one task that is trained, or None.
        trials: the configurations it may choose from, as runs on the trials' seed; the first is the default.
        seeds: on which the chosen one is judged.
        axis: the name of what arms differ in, and of the arm the others are judged by; None: the strategy.
        on: the problem with options of the arm's own: along an axis, or of a study's best; None: as it is.
    """

    problem: str
    budget: str
    name: str
    only: str | None
    trials: tuple[RunSpec, ...]
    seeds: tuple[int, ...]
    axis: tuple[str, str] | None = None
    on: str | None = None

    def finals(self, chosen: int) -> list[RunSpec]:
        """The runs that judge the configuration of this number."""
        base = self.trials[chosen]
        problem = self.on or self.problem
        return [
            replace(base, settings=replace(base.settings, seed=seed), problem=problem, scored=True)
            for seed in self.seeds
        ]


def arms_of(
    problem: str,
    tasks: Sequence[str],
    strategies: Sequence[str],
    settings: Settings,
    budget: Budget,
    repetitions: Sequence[int],
    axis: Axis | None = None,
) -> list[Arm]:
    """Every arm on a problem: each task alone, and ``strategies``, those that are `ALWAYS` there among them.

    Every arm's k-th trial has the same learning rate, so that none has luck of its own with it. With one
    trial static weights are equal weights, so that arm is left out. Along an axis there is each of its arms
    with each strategy, under the names of both where there are several strategies.
    """
    from .tune.space import make_space

    base, _ = scales.split(problem)
    named = [name for name in strategies if name != "fixed" or budget.trials > 1]
    loop = read_space(loop_space(settings))
    seed = seed_of(problem, TRIAL)
    # the scaled problem's configurations are those of the problem as it is, so there they are made
    space = replace(
        make_space(base, named),
        settings=replace(settings, seed=seed),
        loop={key: loop[key] for key in SEARCHED},
        model={},
    )
    seeds = tuple(seed_of(problem, repetition) for repetition in repetitions)

    def trials(name: str, only: str | None = None) -> tuple[RunSpec, ...]:
        found = [space.run(name)]
        found += [space.suggest(Draws(base, number), name) for number in range(1, budget.trials)]
        return tuple(replace(run, only=only, scored=False) for run in found)

    kind = None if axis is None else (axis.name, label_of(axis.base, named[0], named))
    rows = [Arm(problem, budget.name, SINGLE, task, trials("equal", task), seeds, kind) for task in tasks]
    if axis is None:
        return rows + [Arm(problem, budget.name, name, None, trials(name), seeds) for name in named]
    for name in named:
        for label in axis.arms:
            own = tuple(_along(axis, label, run) for run in trials(name))
            where, arm = axis.on(problem, label), label_of(label, name, named)
            rows.append(Arm(problem, budget.name, arm, None, own, seeds, kind, where))
    return rows


def label_of(label: str, strategy: str, strategies: Sequence[str]) -> str:
    """Name of an axis's arm with a strategy."""
    return label if len(strategies) == 1 else f"{label} {strategy}"


def _along(axis: Axis, label: str, run: RunSpec) -> RunSpec:
    """The run as this arm has it."""
    settings = replace(run.settings, **axis.settings(label))
    return replace(run, problem=axis.on(run.problem, label), settings=settings)


class Draws:
    """Values of one trial, in the place of an Optuna trial's: they follow from problem, number and name.

    What is the loop's goes through its range in golden-ratio steps from a random start, so that few values
    are spread over all of it and more of them go on from these; a strategy's own are drawn at random.
    """

    def __init__(self, problem: str, number: int) -> None:
        self.problem, self.number = spec_key(problem), number

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """A number in the range."""
        share = self._share(name)
        if log:
            return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        return low + share * (high - low)

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        """A whole number in the range."""
        return min(high, math.floor(self.suggest_float(name, low, high + 1, log=log)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return choices[math.floor(self._share(name) * len(choices))]

    def _share(self, name: str) -> float:
        if name in SEARCHED:
            return (_uniform(self.problem, name) + self.number * GOLDEN) % 1
        return _uniform(self.problem, name, self.number)


def _uniform(*what: Any) -> float:
    """A number in [0, 1) that follows from plain values."""
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
