"""Optuna's samplers and pruners by name; a sampler's draws follow from the seed and the trial's number."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from ...train.settings import one_of

FIRST = "first"  #: user attribute of the trials that come first: they run to their end
ARM = "arm"  #: user attribute of a trial that is no draw from the space but an arm to compare with

SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: optuna.samplers.TPESampler(seed=seed, group=True, multivariate=True),
    "gp": lambda seed: optuna.samplers.GPSampler(seed=seed, deterministic_objective=False),
    "random": lambda seed: optuna.samplers.RandomSampler(seed=seed),
    "nsga": lambda seed: optuna.samplers.NSGAIISampler(seed=seed, population_size=20),
}
PRUNERS: dict[str, Callable[[], BasePruner]] = {
    # a balancer's weights settle first, so the first epochs prune nothing
    "median": lambda: optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=2, n_min_trials=3),
    "hyperband": lambda: optuna.pruners.HyperbandPruner(min_resource=2),
    "none": optuna.pruners.NopPruner,
}


def make_pruner(name: str) -> BasePruner:
    """A pruner by its name.

    Raises:
        ValueError: there is none of that name.
    """
    one_of("pruner", name, list(PRUNERS))
    return PRUNERS[name]()


class Seeded(BaseSampler):
    """One of `SAMPLERS`, made anew for each trial with a seed from the study's and the trial's number.

    So a study that was stopped goes on with the draws it would have made, and workers that share one never
    draw the same. Trials with the attribute `ARM` are hidden from it: they lack parameters of the space.

    Raises:
        ValueError: there is no sampler of that name.
    """

    def __init__(self, name: str, seed: int) -> None:
        one_of("sampler", name, list(SAMPLERS))
        self.name, self.seed = name, seed
        self._own = _make(name, seed)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """A sampler for this trial."""
        digest = hashlib.sha256(f"{self.seed} {trial.number}".encode()).digest()
        self._own = _make(self.name, int.from_bytes(digest[:4], "big"))
        self._own.before_trial(_drawn(study), trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """That of the sampler."""
        return self._own.infer_relative_search_space(_drawn(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Draws of the sampler."""
        return self._own.sample_relative(_drawn(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A draw of the sampler."""
        return self._own.sample_independent(_drawn(study), trial, param_name, param_distribution)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """What the sampler keeps of a trial."""
        self._own.after_trial(_drawn(study), trial, state, values)


def _make(name: str, seed: int) -> BaseSampler:
    with warnings.catch_warnings():  # some options of Optuna's are experimental
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return SAMPLERS[name](seed)


class _Drawn:
    """A study without the trials that are no draws."""

    def __init__(self, study: Study) -> None:
        self._whole = study

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def _get_trials(self, *args: Any, **options: Any) -> list[FrozenTrial]:
        return [t for t in self._whole._get_trials(*args, **options) if ARM not in t.user_attrs]

    def get_trials(self, *args: Any, **options: Any) -> list[FrozenTrial]:
        return [t for t in self._whole.get_trials(*args, **options) if ARM not in t.user_attrs]

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()


def _drawn(study: Study) -> Any:
    return study if isinstance(study, _Drawn) else _Drawn(study)
