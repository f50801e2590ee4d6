"""What a trial is worth: one run on training and validation data, against single-task training."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import optuna

from ... import problems
from ...files.atomic import Claim
from ...problems import Problem
from ...problems.task import Task
from ...specs import parse_spec
from ...train.history import History
from ...train.settings import resolve_device
from ..claims import standing
from ..results import RUNS, read_result, write_result
from ..run import describe, environment, execute
from ..runspec import RunSpec
from .cost import Cost, check_memory
from .sampling import ARM, FIRST
from .space import EQUAL, Space
from .storage import is_of_storage

CHECKPOINTS = "checkpoints"
LIMITS = ("time", "memory", "task")
LOWEST = -1.0  #: of a normalised score: what a diverged run counts as
_POLL = 0.5  #: seconds between two looks at a run that another worker is at

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Aim:
    """What a study maximises. A limit that is none raises ValueError.

    Attributes:
        pareto: one objective per task instead of their mean.
        limits: name -> most: ``time`` of a step and peak ``memory`` of training (in those of plain training,
            see `cost.Cost`), ``task`` (normalised score that a task may lose against single-task).
    """

    pareto: bool = False
    limits: Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        for name, most in (self.limits or {}).items():
            lowest = -math.inf if name == "task" else 0.0
            if name not in LIMITS or not lowest < most < math.inf:
                raise ValueError(
                    f"a limit is one of {', '.join(LIMITS)}, with a number (of time and memory above 0); "
                    f"found {name}={most!r}."
                )


class Objective:
    """Optuna's objective: trains a trial's run, unless its result is there, and gives its value.

    The value is the mean over tasks of the gain: normalised validation score of the run's best epoch, less
    that of the task trained alone with the problem's own settings and the same seed; with ``aim.pareto``
    each task's. A diverged run's gain is the lowest there is. No test split is ever looked at.
    """

    def __init__(self, space: Space, folder: Path, aim: Aim) -> None:
        self.space, self.folder, self.aim = space, folder, aim
        self._problems: dict[str, Problem] = {}
        self.tasks = {task.name: task for task in self.problem(space.problem).tasks}
        limits = (aim.limits or {}).keys()
        if "memory" in limits:
            check_memory(resolve_device(space.settings.device))
        self._cost = Cost(self.problem) if {"time", "memory"} & limits else None
        self._single: dict[str, float] | None = None

    def __call__(self, trial: optuna.Trial) -> float | list[float]:
        """The value, or one per task.

        Raises:
            optuna.TrialPruned: the pruner ended it.
            Exception: whatever the run raised; its result is written, as a failed one.
        """
        single = self.single
        spec = self.space.suggest(trial, trial.user_attrs.get(ARM))
        trial.set_user_attr("run", about(spec))
        report = None if self.aim.pareto else _Reports(trial, self.tasks, single)
        result = self.result(spec, report)
        gains = self.gains(result, single)
        trial.set_user_attr("gains", gains)
        trial.set_user_attr("diverged", result["status"] != "ok")
        self._constrain(trial, spec, gains)
        return list(gains.values()) if self.aim.pareto else fmean(gains.values())

    @property
    def single(self) -> dict[str, float]:
        """Task -> normalised validation score of single-task training; trained by the first who asks.

        Raises:
            ValueError: such a run failed: there is nothing to compare with.
        """
        if self._single is None:
            self._single = {}
            for name, task in self.tasks.items():
                spec = replace(self.space.run(EQUAL), only=name)
                result = self.result(spec)
                if result["status"] != "ok":
                    message = result["error"]["message"]
                    raise ValueError(f"{name} alone could not be trained, so nothing compares: {message}")
                self._single[name] = normalised(task, result)
        return self._single

    def result(self, spec: RunSpec, report: Callable[[History], None] | None = None) -> Result:
        """The result of a run, from the folder or by training; that of a diverged one says ``"failed"``."""
        with claimed(spec, self.folder):
            if standing(spec, self.folder)[0] in ("ok", "unscored"):
                found = read_result(self.folder / RUNS / f"{spec.id}.json")
                if report:
                    report(History(found["history"], found["best_epoch"]))
                return found
            found = self._train(spec, report)
            write_result(found, self.folder)
            shutil.rmtree(self.folder / CHECKPOINTS / spec.id, ignore_errors=True)
            return found

    def _train(self, spec: RunSpec, report: Callable[[History], None] | None) -> dict[str, Any]:
        start, folder = time.perf_counter(), self.folder / CHECKPOINTS / spec.id
        try:
            problem = self.problem(spec.problem)
            fields = execute(spec, problem, progress=False, folder=folder, after_epoch=report)
        except optuna.TrialPruned:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        except Exception as error:
            if is_of_storage(error):  # a full disk is not the trial's fault: it goes on from its checkpoint
                raise
            failed = spec.result(
                error=describe(error), seconds=time.perf_counter() - start, environment=environment()
            )
            if isinstance(error, FloatingPointError):
                return failed
            write_result(failed, self.folder)
            raise
        seconds = sum(row["seconds"] for row in fields["history"])
        return spec.result(**fields, seconds=seconds, environment=environment())

    def gains(self, result: Result, single: Mapping[str, float]) -> dict[str, float]:
        """Task -> gain over single-task training."""
        ok = result["status"] == "ok"
        return {
            name: (normalised(task, result) if ok else LOWEST) - single[name]
            for name, task in self.tasks.items()
        }

    def problem(self, spec: str) -> Problem:
        """A problem without its test split, kept for the next trial."""
        if spec not in self._problems:
            whole = problems.load(spec)
            rest = {part: examples for part, examples in whole.splits.items() if part != "test"}
            self._problems = {spec: replace(whole, splits=rest)}  # one at a time: they may be large
        return self._problems[spec]

    def _constrain(self, trial: optuna.Trial, spec: RunSpec, gains: Mapping[str, float]) -> None:
        """Say by how much each limit is kept: at most 0."""
        for name, most in (self.aim.limits or {}).items():
            if name == "task":
                found = -min(gains.values())
            else:
                assert self._cost is not None
                found = self._cost.ratio(spec, name)
            trial.set_user_attr(name, found)
            trial.set_constraint(name, found - most)


class _Reports:
    """Tells the pruner the best mean gain so far, epoch by epoch; what comes first is never pruned."""

    def __init__(self, trial: optuna.Trial, tasks: Mapping[str, Task], single: Mapping[str, float]) -> None:
        self.trial, self.tasks = trial, tasks
        self.alone = fmean(single.values())
        self.done, self.best = 0, LOWEST

    def __call__(self, history: History) -> None:
        for row in history.rows[self.done :]:
            self.done += 1
            score = row.get("score")
            self.best = self.best if score is None else max(self.best, score)
            self.trial.report(self.best - self.alone, step=self.done)
        if FIRST not in self.trial.user_attrs and self.trial.should_prune():
            raise optuna.TrialPruned


def normalised(task: Task, result: Result, split: str = "dev") -> float:
    """A result's normalised score; a missing one is the lowest."""
    value = result[split].get(task.name, {}).get(task.metrics[0])
    return LOWEST if value is None or value != value else task.normalised(value)


def about(spec: RunSpec) -> dict[str, Any]:
    """A run as a study keeps it."""

    what = {"problem": spec.problem, "strategy": spec.strategy, "settings": spec.settings.said()}
    return {"id": spec.id, **what, "name": parse_spec(spec.strategy)[0]}


@contextmanager
def claimed(spec: RunSpec, folder: Path) -> Iterator[None]:
    """Wait for the run to be ours: of two workers at one run the second finds the first one's result."""
    claim = Claim(folder / RUNS / f".{spec.id}.claim")
    while not claim.take():
        time.sleep(_POLL)
    try:
        yield
    finally:
        claim.drop()
