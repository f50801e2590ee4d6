"""From a suite to its runs: every problem loaded once, every option tried, before anything is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from .. import Balancer, problems, strategies
from ..problems import Problem, Task
from ..specs import parse_spec
from ..strategies.making import keywords
from ..train.settings import resolve_device
from .budget import Arm, arms_of, budget_of
from .code import library
from .front import front_specs
from .merge import in_shard
from .run import code_of, make_balancer
from .runspec import RunSpec
from .suite import Suite


@dataclass(frozen=True)
class Plan:
    """What a suite asks for: runs that are known, and arms whose last runs follow from their trials."""

    runs: list[RunSpec]
    arms: list[Arm]
    front: Mapping[str, tuple[str, ...]]  #: problem -> specs of the static weights of its reference front

    def by_problem(self) -> dict[str, list[Arm]]:
        """The arms of each problem that has a budget."""
        found: dict[str, list[Arm]] = {}
        for arm in self.arms:
            found.setdefault(arm.problem, []).append(arm)
        return found


def prepare(
    suite: Suite, overrides: Mapping[str, Any], notes: list[str], *, shard: tuple[int, int] = (1, 1)
) -> Plan:
    """The runs and arms of a suite, each checked as far as it can be without training.

    Every problem is loaded here once, so that downloads and caches are in place before workers share them;
    what users' files were taken for is added to ``notes``. Of shard (i, n) there is the i-th part of the runs
    and of the arms, each with all its trials and seeds.

    Raises:
        ValueError: an option of a problem or of a strategy is refused, or there is no such device.
    """
    _check_bests(suite)
    runs: list[RunSpec] = []
    arms: list[Arm] = []
    front: dict[str, tuple[str, ...]] = {}
    for name in suite.problems:
        problem = problems.load(name)
        notes += [f"{name}: {note}" for note in problem.notes]
        settings = suite.settings_of(name, problem, overrides)
        resolve_device(settings.device, settings.precision)
        part = suite.on(name)
        bests = [part.bests[arm] for arm in part.strategies if arm in part.bests]
        named = [arm for arm in part.strategies if arm not in part.bests]
        for strategy in (*named, *(best.strategy for best in bests)):
            try:
                _try(strategy, problem.tasks, settings.seed)
            except ValueError as error:
                raise ValueError(f"{strategy!r} on {name!r}: {error}") from error
        known = _known(name, problem, (*named, *(best.strategy for best in bests)))
        budget = suite.budget_of(name)
        if suite.axis is not None and budget is None:
            raise ValueError(f"the arms of an axis are compared under a budget: give {name!r} one.")
        if budget is None:
            runs += [known(run) for run in suite.runs(name, problem, overrides)]
            continue
        tasks = [task.name for task in problem.tasks]
        found = arms_of(name, tasks, named, settings, budget_of(budget), suite.seeds, suite.axis)
        for best in bests:
            problems.load(best.problem)  # with the model's options that were found
            found.append(best.arm(name, budget, settings, found[0].seeds))
        along: dict[str | None, Any] = {
            arm.on: _along(arm, problem, suite) for arm in found if arm.axis and arm.on
        }
        for arm in found:
            arms.append(replace(arm, trials=tuple(map(along.get(arm.on, known), arm.trials))))
        front[name] = front_specs(len(tasks), suite.front)
    order = {seed: place for place, seed in enumerate(suite.seeds)}
    runs = [run for run in runs if in_shard(run.id, shard)]
    arms = [arm for arm in arms if in_shard(f"{arm.problem} {arm.name} {arm.only}", shard)]
    return Plan(sorted(runs, key=lambda run: order[run.seed]), arms, front)


def _along(arm: Arm, problem: Problem, suite: Suite) -> Any:
    """`_known` of an axis's arm, whose problem is loaded and whose model is built once."""
    assert arm.on is not None
    try:
        own = problems.load(arm.on)
        with torch.random.fork_rng(devices=[]):
            own.build()
    except ValueError as error:
        raise ValueError(f"arm {arm.name!r}: {error}") from error
    if [task.name for task in own.tasks] != [task.name for task in problem.tasks]:
        raise ValueError(f"arm {arm.name!r}: {arm.on!r} has other tasks than {arm.problem!r}.")
    return _known(arm.on, own, suite.strategies)


def _check_bests(suite: Suite) -> None:
    """Refuse a study's best where it could not be compared."""
    for name in suite.strategies:
        if (best := suite.bests.get(name)) is None:
            continue
        found = [problem for problem in suite.problems if best.is_on(problem)]
        if not found:
            listed = ", ".join(suite.problems)
            raise ValueError(
                f"{name} is of a study on {best.on!r}, which is none of the problems here: {listed}."
            )
        if any(suite.budget_of(problem) is None for problem in found):
            raise ValueError(
                f"{name} has settings of its own, so it is compared under a budget: --budget default, where "
                "the others have their defaults, or tuned8 and so on, where they are tuned too."
            )


def _known(name: str, problem: Problem, specs: Sequence[str]) -> Any:
    """A function that adds to a run what its data and code are."""
    content = problems.digest(problem)
    named = {parse_spec(strategy)[0]: strategy for strategy in ("equal", "fixed", *specs)}
    codes = {key: (code_of(spec), library(name, spec)) for key, spec in named.items()}

    def known(run: RunSpec) -> RunSpec:
        code, ours = codes[parse_spec(run.strategy)[0]]
        return replace(run, data=content, code=code, library=ours)

    return known


def _try(strategy: str, tasks: tuple[Task, ...], seed: int) -> None:
    """Build a strategy of ours, so that a wrong value is refused now; of a user's own only look at the names.

    What code of the user's own does when it is run must not end the bench.
    """
    name, options = parse_spec(strategy)
    cls = strategies.get(name)
    if cls.__module__.startswith("mtlweights."):
        make_balancer(strategy, tasks, None, seed)
        return
    takes = [p.name for p in keywords(cls)]
    if strange := options.keys() - {*takes, *(p.name for p in keywords(Balancer))}:
        known = ", ".join(takes) or "none"
        raise ValueError(f"{cls.__name__} has no hyperparameter {min(strange)!r}. It takes: {known}.")
