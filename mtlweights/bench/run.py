"""One run: load, build, train, score the test split once. Whatever goes wrong ends up in the result."""

from __future__ import annotations

import os
import platform
import random
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from .. import __version__, problems, strategies, train
from ..balancer.balancer import Balancer
from ..problems import Task
from ..problems.task import LOWER_IS_BETTER
from ..specs import parse_spec
from ..strategies.loading import code_digest
from ..train.processes import joined
from ..train.scoring import labelled
from ..train.sharding import unsharded
from .predictions import PREDICTIONS, pack
from .runspec import RunSpec


def run(spec: RunSpec) -> dict[str, Any]:
    """Train and score one run; a run that raises gives a result of status ``"failed"`` with its error."""
    start = time.perf_counter()
    try:
        problem = problems.load(spec.problem)
        _check_same(spec, problem)
        problem = problem if spec.scored else unscored(problem)
        fields = execute(spec, problem, progress=False)
    except Exception as error:
        fields = {"status": "failed", "error": describe(error)}
    return spec.result(**fields, seconds=time.perf_counter() - start, environment=environment())


def _check_same(spec: RunSpec, problem: problems.Problem) -> None:
    """Refuse what has changed since the bench read it: its runs would not be comparable."""
    if spec.data is not None and problems.digest(problem) != spec.data:
        raise ValueError(f"the data of {spec.problem} changed while the bench ran: run it again")
    if spec.code is not None and code_of(spec.strategy) != spec.code:
        raise ValueError(f"the file of strategy {spec.strategy} changed while the bench ran: run it again")


def code_of(strategy: str) -> str | None:
    """Digest of the file of a strategy of the user's own, by its spec; None for a built-in one."""
    return code_digest(strategies.get(parse_spec(strategy)[0]))


def execute(
    spec: RunSpec,
    problem: problems.Problem,
    keep: Callable[[nn.Module], object] = lambda model: None,
    watch: Callable[[nn.Module, problems.Problem], Callable[[train.History], None]] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Build, train and score: the result's fields. ``options`` are those of `train.fit`.

    ``keep`` is given the trained model, ``watch`` the untrained one, for an ``after_epoch``. A problem
    without a test split, as trials of a study get it, is scored on none.
    """
    seed_everything(spec.seed)
    if spec.only is not None:
        problem = alone(problem, spec.only)
    model = problem.build()
    balancer = make_balancer(spec.strategy, problem.tasks, model, spec.seed)
    last: dict[str, Any] = {}
    then = options.pop("after_epoch", None) if watch is None else watch(model, problem)
    after = partial(_after_epoch, spec, problem, model, last, then)
    history = train.fit(model, balancer, problem, spec.settings, after_epoch=after, **options)
    # fit leaves the best epoch's weights in the model: the test split is scored once, and on those
    outputs = _outputs(spec, problem, model)
    test = _scores(problem, outputs)
    keep(unsharded(model, problem.build))
    return {
        "status": "ok",
        "tasks": {task.name: describe_task(task) for task in problem.tasks},
        "test": test,
        "last": last or test,
        **({PREDICTIONS: pack(problem, outputs)} if outputs else {}),
        "dev": next(row["dev"] for row in history.rows if row["epoch"] == history.best_epoch),
        "history": history.rows,
        "best_epoch": history.best_epoch,
        "steps": history.steps,
    }


def alone(problem: problems.Problem, task: str) -> problems.Problem:
    """The problem with one task, in as many steps an epoch as with all of them.

    Where each example is labelled for one task, those of this task come again and again.
    """
    return replace(problem.only(task), epoch=len(labelled(problem, "train")))


def unscored(problem: problems.Problem) -> problems.Problem:
    """The problem without its test split."""
    rest = {part: examples for part, examples in problem.splits.items() if part != "test"}
    return replace(problem, splits=rest)


def _after_epoch(
    spec: RunSpec,
    problem: problems.Problem,
    model: Any,
    last: dict[str, Any],
    then: Callable[[Any], None] | None,
    history: train.History,
) -> None:
    """The last epoch's model is scored beside the best one's, which nothing is chosen by."""
    settings, best = spec.settings, history.best_epoch == len(history.rows)
    ended = history.ended(settings, problem.tasks)
    if ended and not best:
        last |= _scores(problem, _outputs(spec, problem, model))
    if then is not None:
        then(history)


def _outputs(spec: RunSpec, problem: problems.Problem, model: Any) -> dict[str, Any]:
    """On the test split, if the problem has one; of several processes the first one gets them."""
    if "test" not in problem.splits:
        return {}
    return train.outputs_of(model, problem, "test", spec.settings.batch_size, joined())


def _scores(problem: problems.Problem, outputs: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Of outputs that the first process has, in all; of none, none."""
    return joined().same(lambda: train.scores_of(problem, outputs) if outputs else {})


def make_balancer(strategy: str, tasks: tuple[Task, ...], model: Any, seed: int) -> Balancer:
    """The Balancer of a strategy spec; its options are the strategy's and the Balancer's own.

    Raises:
        ValueError: unknown strategy, unknown option, or a value the strategy refuses.
    """
    name, options = parse_spec(strategy)
    try:
        return Balancer(name, [task.name for task in tasks], model, **{"seed": seed, **options})
    except TypeError as error:
        raise ValueError(f"strategy {strategy!r}: {error}") from error


def describe_task(task: Task) -> dict[str, Any]:
    """What a report must know of a task: its metrics, the first one first, and their direction."""
    directions = {metric: metric not in LOWER_IS_BETTER for metric in task.metrics}
    return {"kind": task.kind, "metrics": list(task.metrics), "higher_is_better": directions}


def describe(error: BaseException) -> dict[str, str]:
    """An exception as JSON."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"type": type(error).__name__, "message": str(error) or type(error).__name__, "traceback": text}


def seed_everything(seed: int) -> None:
    """Seed torch, NumPy and random: the same seed gives every arm the same initial model and data order."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def environment() -> dict[str, Any]:
    """Versions and machine, for the report."""
    return {
        "mtlweights": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
