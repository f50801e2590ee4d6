"""`tune`: a study from end to end, and what people with an objective or a study of their own call."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna
from optuna.trial import TrialState

from ...files.atomic import write
from ..report.study import STUDY
from ..results import runs_folder
from ..runspec import slug
from .objective import Aim, Objective
from .outcome import BEST, as_json, best_of, best_yaml, on_fresh_seeds, record, table
from .own import Own, tune_objective
from .space import ALL, Space, make_space
from .storage import open_storage, reaching
from .study import Search, enqueue_first, identity_of, join, slots_of, work


@dataclass(frozen=True)
class Outcome:
    """What a study found.

    Attributes:
        study: Optuna's.
        best: the best trial.
        value: its mean gain on the seed of the trials: optimistic.
        fresh: rows of the table on fresh seeds, see `outcome.table`.
        folder: of the results, the page and ``best.yaml``; None with an objective of one's own.
        failed: number of trials that raised.
    """

    study: optuna.Study
    best: optuna.trial.FrozenTrial
    value: float
    fresh: list[dict[str, Any]]
    folder: Path | None
    failed: int


def tune(
    problem: str | Own,
    strategies: Sequence[str] = (ALL,),
    *,
    n_tasks: int = 2,
    trials: int = 40,
    study: str | optuna.Study | None = None,
    storage: str | None = None,
    folder: str | Path | None = None,
    narrowed: Mapping[str, Any] | None = None,
    search: Search | None = None,
    aim: Aim | None = None,
    fresh: int = 5,
    interval: float = 30.0,
    threads: int = 1,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Search strategies, their hyperparameters, the loop's settings and the model's as one space.

    Called again, or at the same time by other processes and machines with the same storage and folder, it
    joins the study; all of them stop when it has ``trials`` trials in total.

    Args:
        problem: a spec, see `mtlweights.problems.load`; or a training of one's own, an objective as in
            `tune_objective`: then ``study`` may be an `optuna.Study`, and what has to do with a problem
            (folder, narrowed, aim, fresh, threads) is left alone.
        strategies: specs; ``"all"`` stands for every strategy that has a name.
        n_tasks: T, of an objective of one's own; a problem knows its own.
        study: its name; by default made of problem and strategies.
        storage: see `open_storage`; by default SQLite in ``folder``.
        folder: of results, checkpoints and what is found; by default ``studies/STUDY``.
        narrowed: see `make_space`.
        search: sampler, pruner and seed; the seed is also that of every trial's training.
        aim: what is maximised, and within which limits.
        fresh: seeds on which the best is compared with the defaults in the end; 0 for none.
        interval: seconds between two heartbeats; a trial silent for four of them is taken over.
        threads: torch threads of the runs on fresh seeds.
        say: takes a line for every trial.

    Raises:
        ValueError: something is refused, another study has this name, or no trial came to its end.
        OSError: storage or folder cannot be used.
        ImportError: a driver of the storage is missing.
    """
    search, aim = search or Search(), aim or Aim()
    if callable(problem):
        named = study or "mtlweights"
        how: dict[str, Any] = {"storage": storage, "search": search, "interval": interval, "say": say}
        made = tune_objective(problem, strategies, n_tasks, trials=trials, study=named, **how)
        return _outcome(made, [], None)
    if isinstance(study, optuna.Study):
        raise ValueError("a problem's study goes by its name: give study=NAME and storage=URL.")
    if trials < 1 or fresh < 0 or threads < 1 or not 0 < interval < math.inf:
        given = f"{trials}, {fresh}, {threads}, {interval}"
        raise ValueError(f"expected trials >= 1, fresh >= 0, threads >= 1, interval > 0; found {given}.")
    name = study or slug(f"{problem}--{'-'.join(strategies)}")
    path = runs_folder(Path(folder or Path("studies") / name)).parent
    space = make_space(problem, strategies, narrowed=narrowed, seed=search.seed)
    objective = Objective(space, path, aim)
    where = storage or f"{path}"
    kept = open_storage(storage, path)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with reaching(where), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        objectives = len(space.tasks) if aim.pareto else 1
        joined = join(kept, name, search, objectives, identity_of(space, aim))
        objective.single  # noqa: B018 (trained before the first trial, or the trials are blamed)
        enqueue_first(joined, space, trials)
        work(joined, objective, trials, interval=interval, say=say)
        return _finish(joined, space, problem, path, fresh, threads, say)


def _finish(
    study: optuna.Study,
    space: Space,
    problem: str,
    folder: Path,
    fresh: int,
    threads: int,
    say: Callable[[str], None],
) -> Outcome:
    """The best on fresh seeds, and the files that tell of the study."""
    best = best_of(study)
    value = fmean(best.values or [])
    seeds = range(space.settings.seed + 1, space.settings.seed + 1 + fresh)
    title = (
        f"study {study.study_name}, trial {best.number}: {value:+.4f} mean normalised validation gain over "
        f"single-task training, on seed {space.settings.seed}"
    )
    write(folder / BEST, best_yaml(study, best, space, problem, seeds, title))
    say(title)
    rows = []
    if fresh:
        say(f"on {fresh} fresh seeds: the best, its strategy's defaults, equal weights, each task alone")
        rows = table(best, on_fresh_seeds(best, space, folder, seeds, threads=threads, progress=True))
    write(folder / STUDY, as_json(record(study, space, rows)))
    return _outcome(study, rows, folder)


def _outcome(study: optuna.Study, rows: list[dict[str, Any]], folder: Path | None) -> Outcome:
    best = best_of(study)
    failed = sum(t.state == TrialState.FAIL for t in slots_of(study.get_trials(deepcopy=False)))
    return Outcome(study, best, fmean(best.values or []), rows, folder, failed)
