"""Suites: what is compared on what, with which seeds or which budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from ..specs import nearest
from ..train import Settings
from . import budget as budgets
from .axes import Axis
from .front import MOST
from .runspec import RunSpec, problem_key, spec_key

if TYPE_CHECKING:
    from ..problems import Problem
    from .best import Best

MOST_SEEDS = 10_000
SETTINGS = tuple(field.name for field in fields(Settings) if field.name != "seed")


@dataclass(frozen=True)
class Suite:
    """What is compared: every strategy, and single-task training, on every problem with every seed.

    Under a budget the seeds are repetitions, whose seeds follow from the problem (`budget.seed_of`).
    """

    name: str
    problems: Mapping[str, Mapping[str, Any]]  #: spec -> its own settings
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    worth: Mapping[str, float] = field(default_factory=dict)  #: spec -> smallest difference that matters
    budget: str | None = None
    budgets: Mapping[str, str] = field(default_factory=dict)  #: spec -> its own budget
    front: int = 0  #: points of the reference front of static weights, on every problem under a budget
    axis: Axis | None = None  #: what the arms differ in beside the strategy; goes with a budget
    bests: Mapping[str, Best] = field(default_factory=dict)  #: those of ``strategies`` that studies found

    def __post_init__(self) -> None:
        if isinstance(self.front, bool) or not (isinstance(self.front, int) and 0 <= self.front <= MOST):
            raise ValueError(f"front should be a number of points from 0 to {MOST}, found {self.front!r}.")
        if self.front and self.axis is not None:
            raise ValueError("a front is one of static weights: leave it out along an axis.")
        lists = (("problem", self.problems, problem_key), ("strategy", self.strategies, spec_key))
        for what, specs, key_of in lists:
            seen: dict[str, str] = {}
            for spec in specs:
                # two spellings of one spec would be one run counted twice
                key = repr(key_of(spec))
                if key in seen:
                    raise ValueError(f"{what} {spec!r} is listed twice, first as {seen[key]!r}.")
                seen[key] = spec
            if not seen:
                raise ValueError(f"no {what} is listed; name at least one.")

    def under(self, budget: str) -> Suite:
        """The suite under this budget, with its seeds and the arms that are always there.

        Along an axis none is: its own first arm is what the others are judged by.

        Raises:
            ValueError: there is no such budget.
        """
        arms = tuple(dict.fromkeys([*([] if self.axis else budgets.ALWAYS), *self.strategies]))
        seeds = tuple(range(budgets.budget_of(budget).seeds))
        return replace(self, budget=budget, strategies=arms, seeds=seeds)

    def on(self, name: str) -> Suite:
        """The suite's part on the problem of spec ``name``, with the arms that are on it."""
        arms = tuple(s for s in self.strategies if s not in self.bests or self.bests[s].is_on(name))
        return replace(self, problems={name: self.problems[name]}, strategies=arms)

    def budget_of(self, name: str) -> str | None:
        """The budget on the problem of spec ``name``."""
        return self.budgets.get(name, self.budget)

    def settings_of(self, name: str, problem: Problem, overrides: Mapping[str, Any]) -> Settings:
        """The settings on the problem of spec ``name``, with the first seed.

        Later ones win: the problem's defaults, the suite's, the suite's for this problem, ``overrides``.

        Raises:
            ValueError: a setting out of range, or a problem with one task: nothing to balance.
        """
        if len(problem.tasks) < 2:
            raise ValueError(f"problem {name!r} has one task; comparing strategies takes two or more.")
        layers = (problem.settings, self.settings, self.problems[name], overrides)
        chosen = {key: value for layer in layers for key, value in layer.items()}
        return Settings(**{**chosen, "seed": self.seeds[0]})

    def runs(self, name: str, problem: Problem, overrides: Mapping[str, Any]) -> list[RunSpec]:
        """The runs on the problem of spec ``name`` without a budget, seed by seed.

        Raises:
            ValueError: as `settings_of`.
        """
        first = self.settings_of(name, problem, overrides)
        found = []
        for seed in self.seeds:
            settings = replace(first, seed=seed)
            single = [RunSpec(name, "equal", task.name, settings) for task in problem.tasks]
            found += single + [RunSpec(name, strategy, None, settings) for strategy in self.strategies]
        return found


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings no run has.

    Raises:
        ValueError: an unknown name, or a value :class:`train.Settings` refuses.
    """
    for key in settings:
        if key == "seed":
            raise ValueError("seed is no setting of a suite: seeds come from its key 'seeds'.")
        if key not in SETTINGS:
            raise ValueError(f"unknown setting {key!r}; " + nearest(key, SETTINGS))
    Settings(**settings)
