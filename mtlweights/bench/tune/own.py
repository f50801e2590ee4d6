"""For a training of one's own: strategies and their hyperparameters from Optuna's trials."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna

from ... import strategies as registry
from ...specs import format_spec, parse_spec
from ...strategies import Strategy
from ...strategies.space import Ratios, read_space
from .objective import Aim
from .sampling import ARM
from .space import space_of
from .storage import open_storage, reaching
from .study import Search, Values, enqueue_first, identity_of, join, work

Own = Callable[[optuna.Trial, str, dict[str, Any]], Values]


def tune_objective(
    objective: Own,
    strategies: Sequence[str],
    n_tasks: int,
    *,
    trials: int = 40,
    study: str | optuna.Study = "mtlweights",
    storage: str | None = None,
    search: Search | None = None,
    interval: float = 30.0,
    say: Callable[[str], None] = print,
) -> optuna.Study:
    """Maximise a training of one's own: ``objective(trial, strategy, hyperparameters) -> value``.

    The first trials are every strategy's defaults and equal weights. A study given as an object is used as it
    is, its sampler and pruner too; one given by name is kept in ``storage``, or in memory without one.

    Args:
        objective: makes a ``Balancer(strategy, tasks, model, **hyperparameters)``, trains and gives a score;
            it may ask the trial for more (a learning rate), and report scores to it.
        strategies: specs, see `tune`.
        n_tasks: T.

    The other arguments are those of `tune`.

    Raises:
        ValueError, OSError, ImportError: as `tune`.
    """
    space, search = space_of(strategies, n_tasks), search or Search()
    if isinstance(study, str):
        kept = optuna.storages.InMemoryStorage() if storage is None else open_storage(storage, Path())
        found = join(kept, study, search, 1, identity_of(space, Aim()))
    else:
        found = study

    def call(trial: optuna.Trial) -> Values:
        name, options = parse_spec(space.suggest(trial, trial.user_attrs.get(ARM)).strategy)
        trial.set_user_attr("run", {"strategy": format_spec(name, options)})
        return objective(trial, name, options)

    with reaching(storage or "in memory"):
        enqueue_first(found, space, trials)
        work(found, call, trials, interval=interval, say=say)
    return found


def suggest(
    trial: optuna.Trial, strategy: str | type[Strategy], prefix: str = "", *, n_tasks: int | None = None
) -> dict[str, Any]:
    """The hyperparameters of a strategy from a trial of your own study, for ``Balancer(strategy, **these)``.

    Args:
        trial: Optuna's.
        strategy: a class, or a name.
        prefix: before the parameters' names, such as ``"cagrad."``.
        n_tasks: T, needed by strategies with a weight per task (``fixed``).

    Raises:
        ValueError: unknown strategy, or ``n_tasks`` is needed.
    """
    cls = registry.get(strategy) if isinstance(strategy, str) else strategy
    found = {}
    for name, range_ in read_space(getattr(cls, "space", {})).items():
        if n_tasks is None and isinstance(range_, Ratios):
            raise ValueError(f"{cls.__name__} has a weight per task: give suggest(..., n_tasks=T).")
        found[name] = range_.suggest(trial, prefix + name, n_tasks or 1)
    return found
