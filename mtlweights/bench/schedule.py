"""run_suite: what is missing in a folder is computed, and the suite's results come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import Balancer, problems, strategies
from ..files.escapes import visible
from ..problems import Task
from ..specs import parse_spec
from ..strategies.making import keywords
from ..train.settings import resolve_device
from .claims import standing
from .pool import LIMIT, run_pool
from .protocol import Protocol, settle
from .results import RUNS, read_result, runs_folder
from .run import code_of, make_balancer, run
from .runspec import RunSpec
from .suite import Suite, check_settings
from .worker import Runner


def run_suite(
    suite: Suite,
    folder: str | Path,
    *,
    jobs: int | None = None,
    threads: int = 1,
    progress: bool = True,
    overrides: Mapping[str, Any] | None = None,
    runner: Runner = run,
    limit_minutes: float = LIMIT / 60,
    protocol: Protocol | None = None,
) -> list[dict[str, Any]]:
    """Run what ``folder`` lacks and return the suite's results, failed ones included, in order.

    A run that is there is not computed again; one that failed is tried again, and so is one that cannot be
    read, or is of other data or code: that is said. Stopped at any moment and called again, it loses the runs
    in flight and no other. Several calls on one folder, also from several machines, share the runs.

    Args:
        jobs: processes at a time, by default one per ``threads`` cores.
        threads: torch threads of each process.
        overrides: settings over the suite's, for every problem.
        runner: what a worker calls with its :class:`RunSpec`; importable by name.
        limit_minutes: a run that takes longer is ended, and failed; by default a day.
        protocol: how the results are to be judged; by default a number of seeds chosen beforehand, and the
            suite's ``worth``. What was settled for the folder before stays, and that is said.

    Raises:
        OSError: the folder cannot be written.
        ValueError: an option of a problem or a strategy, or a setting, is refused; or more jobs than cores.
    """
    jobs = _jobs(jobs, threads)
    if not limit_minutes > 0:
        raise ValueError(f"limit_minutes should be above 0, found {limit_minutes!r}.")
    check_settings(overrides or {})
    path = runs_folder(folder).parent
    notes: list[str] = []
    specs = prepare(suite, overrides or {}, notes)
    notes += settle(protocol or Protocol(suite.worth), path)
    before = {spec.id: standing(spec, path) for spec in specs}
    missing = [spec for spec in specs if before[spec.id][0] != "ok"]
    if progress:
        lines = [*notes, _plan(folder, list(before.values()))]
        print(*map(visible, lines), sep="\n", file=sys.stderr)
    if missing:
        limit = 60 * limit_minutes
        run_pool(missing, runner, path, jobs=jobs, threads=threads, progress=progress, limit=limit)
    return [read_result(path / RUNS / f"{spec.id}.json") for spec in specs]


def prepare(suite: Suite, overrides: Mapping[str, Any], notes: list[str]) -> list[RunSpec]:
    """The runs of a suite, seed by seed, each checked as far as it can be without training.

    Every problem is loaded here once, so that downloads and caches are in place before workers share them;
    what users' files were taken for is added to ``notes``.

    Raises:
        ValueError: an option of a problem or of a strategy is refused, or there is no such device.
    """
    specs: list[RunSpec] = []
    codes = {strategy: code_of(strategy) for strategy in ("equal", *suite.strategies)}
    for name in suite.problems:
        problem = problems.load(name)
        notes += [f"{name}: {note}" for note in problem.notes]
        found = suite.runs(name, problem, overrides)
        resolve_device(found[0].settings.device, found[0].settings.precision)
        for strategy in suite.strategies:
            try:
                _try(strategy, problem.tasks, suite.seeds[0])
            except ValueError as error:
                raise ValueError(f"{strategy!r} on {name!r}: {error}") from error
        content = problems.digest(problem)
        specs += [replace(spec, data=content, code=codes[spec.strategy]) for spec in found]
    order = {seed: place for place, seed in enumerate(suite.seeds)}
    return sorted(specs, key=lambda spec: order[spec.seed])


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


def _plan(folder: str | Path, before: list[tuple[str, str]]) -> str:
    """What there is to do, and a line for every result that is not kept."""
    kinds = [kind for kind, _ in before]
    done, failed = kinds.count("ok"), kinds.count("failed")
    again = f", {failed} of them again because they failed" if failed else ""
    first = f"{len(before)} runs: {done} in {folder} already, {len(before) - done} to do{again}"
    return "\n".join([first, *(f"again: {why}" for _, why in before if why)])


def _jobs(jobs: int | None, threads: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"jobs and threads should be at least 1, found jobs={jobs}, threads={threads}.")
    if (jobs or 1) * threads > cores:
        raise ValueError(
            f"{jobs or 1} jobs x {threads} threads are more than the {cores} cores here; lower one of them."
        )
    return jobs or cores // threads
