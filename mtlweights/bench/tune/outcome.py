"""What a study found: its best trial on fresh seeds, beside its strategy's defaults and equal weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import optuna
import yaml
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from ... import problems
from ...specs import parse_spec
from ...train import Settings
from ..claims import standing
from ..pool import run_pool
from ..report.comparison import Estimate, estimate
from ..results import RUNS, read_result
from ..run import run
from ..runspec import RunSpec
from .objective import LOWEST, normalised
from .sampling import ARM
from .space import EQUAL, Space
from .study import IDENTITY, slots_of

BEST = "best.yaml"
BELOW = 0.1  #: below single-task training lies the reference of the hypervolume, in every task


@dataclass(frozen=True)
class Fresh:
    """An arm on fresh seeds: mean gain over single-task training, by seed."""

    arm: str
    run: RunSpec
    validation: dict[int, float]
    test: dict[int, float]


def best_of(study: optuna.Study) -> FrozenTrial:
    """The feasible trial with the highest mean gain; in a study of several objectives, one of its front.

    Raises:
        ValueError: none has ended well.
    """
    ended = [t for t in slots_of(study.get_trials(deepcopy=False)) if t.state == TrialState.COMPLETE]
    feasible = [t for t in ended if all(value <= 0 for value in t.constraints.values())]
    if not feasible:
        why = "within the constraints" if ended else "to its end"
        raise ValueError(f"no trial of study {study.study_name!r} came {why}: there is no best one.")
    return max(feasible, key=lambda trial: fmean(trial.values or [LOWEST]))


def run_of(trial: FrozenTrial, space: Space) -> RunSpec:
    """The run of a trial."""
    kept = trial.user_attrs["run"]
    found = space.run(kept["strategy"], kept["problem"])
    return replace(found, settings=Settings(**kept["settings"]))


def best_yaml(
    study: optuna.Study, trial: FrozenTrial, space: Space, problem: str, seeds: Sequence[int], title: str
) -> str:
    """The best configuration as a suite, which ``mtlweights train`` and ``mtlweights bench`` read.

    Its key ``study`` says what it is the best of, on ``problem``: so a bench can take it as an arm.
    """
    best = run_of(trial, space)
    trials = len(slots_of(study.get_trials(deepcopy=False)))
    settings = {key: value for key, value in best.settings.said().items() if key != "seed"}
    suite: dict[str, Any] = {"problems": {best.problem: settings}, "strategies": [best.strategy]}
    suite["seeds"] = list(seeds) or [space.settings.seed + 1]
    suite["study"] = {"name": study.study_name, "problem": problem, "trials": trials}
    head = f"# {title}\n# mtlweights train THIS_FILE        mtlweights bench THIS_FILE\n"
    return head + yaml.safe_dump(suite, sort_keys=False)


def on_fresh_seeds(
    trial: FrozenTrial, space: Space, folder: Path, seeds: Sequence[int], *, threads: int, progress: bool
) -> list[Fresh]:
    """Train the best, its strategy's defaults and equal weights on seeds that chose nothing, and score them.

    Workers that share the folder share these runs too.
    """
    best = run_of(trial, space)
    name = parse_spec(best.strategy)[0]
    arms = {"best": best, f"{name}, defaults": space.run(name), "equal, defaults": space.run(EQUAL)}
    single = [replace(space.run(EQUAL), only=task) for task in space.tasks]
    specs = {
        spec.id: spec for seed in seeds for spec in (_seeded(s, seed) for s in (*single, *arms.values()))
    }
    missing = [spec for spec in specs.values() if standing(spec, folder)[0] not in ("ok", "failed")]
    if missing:
        run_pool(missing, run, folder, jobs=1, threads=threads, progress=progress)
    return [_fresh(arm, spec, single, space, folder, seeds) for arm, spec in arms.items()]


def _fresh(
    arm: str, spec: RunSpec, single: Sequence[RunSpec], space: Space, folder: Path, seeds: Sequence[int]
) -> Fresh:
    tasks = problems.load(space.problem).tasks
    found: dict[str, dict[int, float]] = {"dev": {}, "test": {}}
    for seed in seeds:
        own = _read(_seeded(spec, seed), folder)
        alone = [_read(_seeded(s, seed), folder) for s in single]
        for split, values in found.items():
            values[seed] = fmean(
                (normalised(task, own, split) if own["status"] == "ok" else LOWEST)
                - normalised(task, other, split)
                for task, other in zip(tasks, alone, strict=True)
            )
    return Fresh(arm, spec, found["dev"], found["test"])


def table(trial: FrozenTrial, fresh: Sequence[Fresh]) -> list[dict[str, Any]]:
    """Rows of the outcome: gains of each arm on fresh seeds, and how far the best is ahead of it."""
    best, rows = fresh[0], []
    for arm in fresh:
        ahead = [best.test[seed] - arm.test[seed] for seed in arm.test]
        rows.append(
            {
                "arm": arm.arm,
                "strategy": arm.run.strategy,
                "validation": _plain(estimate(list(arm.validation.values()))),
                "test": _plain(estimate(list(arm.test.values()))),
                "ahead": None if arm is best else _plain(estimate(ahead)),
                "tuned": fmean(trial.values or [LOWEST]) if arm is best else None,
            }
        )
    return rows


def optimism(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """By how much the best trial's own score is above what the same configuration gets on fresh seeds."""
    best = rows[0] if rows else None
    return None if best is None or not best["validation"] else best["tuned"] - best["validation"]["mean"]


def record(study: optuna.Study, space: Space, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The study as plain values, from which the page is drawn wherever its storage is."""
    trials = slots_of(study.get_trials(deepcopy=False))
    return {
        "name": study.study_name,
        "of": study.user_attrs[IDENTITY],
        "tasks": list(space.tasks),
        "best": best_of(study).number,
        "fresh": list(rows),
        "optimism": optimism(rows),
        "hypervolume": hypervolume(study),
        "trials": [_trial(trial) for trial in trials],
    }


def hypervolume(study: optuna.Study) -> dict[str, float] | None:
    """Of a front: the volume of gains that it dominates, over a point `BELOW` single-task in every task."""
    if len(study.directions) == 1:
        return None
    from optuna._hypervolume import compute_hypervolume  # public only inside a figure

    losses = -np.array([trial.values for trial in study.best_trials]).reshape(-1, len(study.directions))
    reference = np.full(len(study.directions), BELOW)
    inside = losses[(losses < reference).all(1)]
    value = float(compute_hypervolume(inside, reference)) if len(inside) else 0.0
    return {"value": value, "reference": BELOW}


def as_json(found: Mapping[str, Any]) -> str:
    """The record of a study as JSON."""
    return json.dumps(found, indent=1, default=str)


def _trial(trial: FrozenTrial) -> dict[str, Any]:
    seconds = trial.duration.total_seconds() if trial.duration else None
    return {
        "number": trial.number,
        "state": trial.state.name,
        "values": trial.values,
        "params": trial.params,
        "distributions": {key: distribution_to_json(d) for key, d in trial.distributions.items()},
        "intermediate": {str(step): value for step, value in trial.intermediate_values.items()},
        "constraints": trial.constraints,
        "attributes": trial.user_attrs,
        "arm": trial.user_attrs.get(ARM),
        "start": trial.datetime_start.isoformat() if trial.datetime_start else None,
        "seconds": seconds,
    }


def _seeded(spec: RunSpec, seed: int) -> RunSpec:
    return replace(spec, settings=replace(spec.settings, seed=seed))


def _read(spec: RunSpec, folder: Path) -> dict[str, Any]:
    return read_result(folder / RUNS / f"{spec.id}.json")


def _plain(found: Estimate | None) -> dict[str, Any] | None:
    return None if found is None else {"mean": found.mean, "half": found.half, "n": found.n}
