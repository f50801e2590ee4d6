"""What a study tries: strategies with their hyperparameters, the training loop's settings, the encoder's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from ... import problems, strategies
from ...problems import Problem, scales
from ...specs import format_spec, parse_spec, suggest
from ...strategies.making import keywords
from ...strategies.space import Range, read_space
from ...train import Settings
from ...train.settings import resolve_device
from ...train.settings import space as loop_space
from ..code import library
from ..run import code_of, make_balancer
from ..runspec import RunSpec
from ..suite import SETTINGS
from .narrow import is_range

ALL = "all"  #: in the place of strategies: every one that has a name
EQUAL = "equal"
Ranges = Mapping[str, Range]


@dataclass(frozen=True)
class Space:
    """The ranges of a study on one problem, by name, and what stays as it is."""

    problem: str
    settings: Settings  #: the problem's own, with what is fixed; its seed is that of every trial
    options: Mapping[str, Any]  #: the problem's own, of the encoder
    tasks: tuple[str, ...]
    data: str  #: digest of the problem's data
    loop: Ranges
    model: Ranges
    strategies: Mapping[str, Ranges]  #: by spec

    def suggest(self, trial: Any, arm: str | None = None) -> RunSpec:
        """The run of an Optuna trial; with ``arm`` that of this strategy, without a choice."""
        specs = list(self.strategies)
        if arm is None:
            arm = trial.suggest_categorical("strategy", specs) if len(specs) > 1 else specs[0]
        hyperparameters = self._ask(trial, self.strategies.get(arm, {}), f"{arm}.")
        return self.run(
            # what is as it would be is not said, so that a run has one name, in bench too
            with_options(arm, _unlike(hyperparameters, _defaults(arm))),
            with_options(self.problem, _unlike(self._ask(trial, self.model), self.options)),
            self._ask(trial, self.loop),
        )

    def _ask(self, trial: Any, ranges: Ranges, prefix: str = "") -> dict[str, Any]:
        n_tasks = len(self.tasks)
        return {key: range_.suggest(trial, prefix + key, n_tasks) for key, range_ in ranges.items()}

    def run(
        self, strategy: str, problem: str | None = None, loop: Mapping[str, Any] | None = None
    ) -> RunSpec:
        """A run with the study's seed; what is left out is as the problem has it."""
        settings = replace(self.settings, **(loop or {}))
        name = problem or self.problem
        ours = library(name, strategy)
        return RunSpec(name, strategy, None, settings, self.data, code_of(strategy), ours)

    def first(self) -> list[tuple[str | None, dict[str, Any]]]:
        """The trials that come first, as (arm, parameters): every strategy's defaults, and equal weights.

        The arm is named only for equal weights that are none of the strategies searched: such a trial has
        no parameter for its strategy.
        """
        common = self._at(asdict(self.settings), self.loop) | self._at(self.options, self.model)
        found: list[tuple[str | None, dict[str, Any]]] = []
        for arm, ranges in self.strategies.items():
            choice = {"strategy": arm} if len(self.strategies) > 1 else {}
            found.append((None, choice | self._at(_defaults(arm), ranges, f"{arm}.") | common))
        return found if EQUAL in self.strategies else [*found, (EQUAL, common)]

    def _at(self, values: Mapping[str, Any], ranges: Ranges, prefix: str = "") -> dict[str, Any]:
        """The parameters that give these values; one that a narrowed range leaves out is the sampler's."""
        found: dict[str, Any] = {}
        for key, range_ in ranges.items():
            try:
                found |= range_.fixed(prefix + key, values[key], len(self.tasks))
            except ValueError:
                continue
        return found


def make_space(
    problem: str, specs: Sequence[str], *, narrowed: Mapping[str, Any] | None = None, seed: int = 0
) -> Space:
    """What a problem, the loop and the strategies declare, with ``narrowed`` in the place of it.

    ``narrowed`` is by name: a setting of the loop, an option of the problem, or ``STRATEGY.HYPERPARAMETER``;
    a range as `mtlweights.strategies.space` has it, or one value, which fixes it.

    Raises:
        ValueError: an unknown name, or a value or range that is refused.
    """
    own = dict(narrowed or {})
    base, factors = scales.split(problem)
    loaded, (name, options) = problems.load(problem), parse_spec(base)
    if len(loaded.tasks) < 2:
        raise ValueError(f"problem {problem!r} has one task; there is nothing to balance.")
    arms = dict(_arm(arm, own) for arm in (strategies.names() if ALL in specs else dict.fromkeys(specs)))
    of_loop = {key: own.pop(key) for key in SETTINGS if key in own}
    of_model = {key: own.pop(key) for key in loaded.options if key in own}
    if own:
        raise ValueError(_unknown(min(own), [*SETTINGS, *loaded.options], arms))
    fixed = {key: value for key, value in of_loop.items() if not is_range(value)}
    settings = Settings(**{**loaded.settings, **fixed, "seed": seed})
    options |= {key: value for key, value in of_model.items() if not is_range(value)}
    model = {key: declared for key, declared in loaded.space.items() if key not in options}
    problem = scales.join(format_spec(name, options), factors)
    space = Space(
        problem,
        settings,
        loaded.options,
        tuple(task.name for task in loaded.tasks),
        problems.digest(loaded),
        read_space(_over(loop_space(settings), of_loop)),
        read_space(_over(model, of_model)),
        arms,
    )
    _check(space, problems.load(problem))
    return space


def _unknown(key: str, settings: Sequence[str], arms: Iterable[str]) -> str:
    """What is wrong with a name that is nothing of the search."""
    name, dot, inner = key.partition(".")
    if dot and name in settings:
        return f"{name} is no strategy, so it has no {inner!r}: a range is {{from: LOW, to: HIGH}}."
    if dot and name in strategies.names() and name not in map(_name, arms):
        return (
            f"there is no {key!r} to search or to fix: {name} is not among the strategies, -s {name} adds it."
        )
    known = [*settings, *(f"{arm}.{h}" for arm in arms for h in _takes(arm))]
    return f"there is no {key!r} to search or to fix; {suggest(key, known)}"


def _name(arm: str) -> str:
    return parse_spec(arm)[0]


def space_of(specs: Sequence[str], n_tasks: int) -> Space:
    """The hyperparameters of strategies alone, for an objective of the user's own."""
    arms = dict(_arm(arm, {}) for arm in (strategies.names() if ALL in specs else dict.fromkeys(specs)))
    return Space("own", Settings(), {}, tuple(str(i) for i in range(n_tasks)), "", {}, {}, arms)


def with_options(spec: str, options: Mapping[str, Any]) -> str:
    """The spec with these options in it, before the factors of a problem's losses."""
    base, factors = scales.split(spec)
    name, own = parse_spec(base)
    return scales.join(format_spec(name, {**own, **options}), factors)


def _arm(arm: str, own: dict[str, Any]) -> tuple[str, Ranges]:
    """Spec and ranges of a strategy; what is said of it is taken out of ``own``."""
    name, options = parse_spec(arm)
    said = {key: own.pop(f"{arm}.{key}") for key in _takes(arm) if f"{arm}.{key}" in own}
    options |= {key: value for key, value in said.items() if not is_range(value)}
    declared = {k: v for k, v in getattr(strategies.get(name), "space", {}).items() if k not in options}
    return format_spec(name, options), read_space(_over(declared, said))


def _over(declared: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """The declared ranges with those that are said in their place, and without what is fixed."""
    both = {**declared, **said}
    return {key: value for key, value in both.items() if key not in said or is_range(value)}


def _unlike(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values that are not the default; where that is None, equal weights are it."""
    unlike = {}
    for key, value in values.items():
        equal = isinstance(value, list) and set(value) == {1}
        if value != defaults[key] and not (equal and defaults[key] is None):
            unlike[key] = value
    return unlike


def _takes(arm: str) -> list[str]:
    return list(_defaults(arm))


def _defaults(arm: str) -> dict[str, Any]:
    """Every hyperparameter of a strategy, at its default or as the spec has it."""
    name, options = parse_spec(arm)
    cls = strategies.get(name)
    return {**{p.name: p.default for p in keywords(cls)}, "weight_lr": cls.weight_lr, **options}


def _check(space: Space, problem: Problem) -> None:
    """Build every end of every range, so that no trial is lost to a value that is refused."""
    n_tasks = len(space.tasks)
    resolve_device(space.settings.device, space.settings.precision)
    for key, range_ in space.loop.items():
        for end in range_.ends(n_tasks):
            replace(space.settings, **{key: end})
    for arm, ranges in space.strategies.items():
        for spec in (
            arm,
            *(with_options(arm, {k: end}) for k, r in ranges.items() for end in r.ends(n_tasks)),
        ):
            try:
                make_balancer(spec, problem.tasks, None, 0)
            except ValueError as error:
                raise ValueError(f"{spec}: {error}") from None
