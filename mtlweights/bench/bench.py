"""run_suite: what is missing in a folder is computed, and the suite's results come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import data
from .pool import Runner, run_pool
from .results import read_result, runs_folder
from .run import make_balancer, run
from .runspec import RunSpec
from .suite import Suite, check_settings


def run_suite(
    suite: Suite,
    folder: str | Path,
    *,
    jobs: int | None = None,
    threads: int = 1,
    progress: bool = True,
    overrides: Mapping[str, Any] | None = None,
    runner: Runner = run,
) -> list[dict[str, Any]]:
    """Run what ``folder`` lacks and return the suite's results, failed ones included, in order.

    A run that is there is not computed again; one that failed is tried again. Stopped at any moment and
    called again, it loses the runs in flight and no other.

    Args:
        jobs: processes at a time, by default one per ``threads`` cores.
        threads: torch threads of each process.
        overrides: settings over the suite's, for every problem.
        runner: what a worker calls with its :class:`RunSpec`; importable by name.

    Raises:
        OSError: the folder cannot be written.
        ValueError: an option of a problem or a strategy, or a setting, is refused; or more jobs than cores.
    """
    jobs = _jobs(jobs, threads)
    check_settings(overrides or {})
    path = runs_folder(folder)
    notes: list[str] = []
    specs = prepare(suite, overrides or {}, notes)
    before = {spec.id: _before(path, spec) for spec in specs}
    missing = [spec for spec in specs if before[spec.id] != "ok"]
    if progress:
        print(*notes, _plan(folder, list(before.values())), sep="\n", file=sys.stderr)
    if missing:
        run_pool(missing, runner, Path(folder), jobs=jobs, threads=threads, progress=progress)
    return [read_result(path / f"{spec.id}.json") for spec in specs]


def prepare(suite: Suite, overrides: Mapping[str, Any], notes: list[str]) -> list[RunSpec]:
    """The runs of a suite, seed by seed, each checked as far as it can be without training.

    Every problem is loaded here once, so that downloads and caches are in place before workers share them;
    what users' files were taken for is added to ``notes``.

    Raises:
        ValueError: an option of a problem or of a strategy is refused.
    """
    specs = []
    for name in suite.problems:
        problem = data.load(name)
        notes += [f"{name}: {note}" for note in problem.notes]
        specs += suite.runs(name, problem, overrides)
        for strategy in suite.strategies:
            try:
                make_balancer(strategy, problem.tasks, None, suite.seeds[0])
            except ValueError as error:
                raise ValueError(f"{strategy!r} on {name!r}: {error}") from error
    order = {seed: place for place, seed in enumerate(suite.seeds)}
    return sorted(specs, key=lambda spec: order[spec.seed])


def _plan(folder: str | Path, before: list[str]) -> str:
    done, failed = before.count("ok"), before.count("failed")
    again = f", {failed} of them again because they failed" if failed else ""
    return f"{len(before)} runs: {done} in {folder} already, {len(before) - done} to do{again}"


def _jobs(jobs: int | None, threads: int) -> int:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"jobs and threads should be at least 1, found jobs={jobs}, threads={threads}.")
    if (jobs or 1) * threads > cores:
        raise ValueError(
            f"{jobs or 1} jobs x {threads} threads are more than the {cores} cores here; lower one of them."
        )
    return jobs or cores // threads


def _before(path: Path, spec: RunSpec) -> str:
    """Status of a run before this call; a file that cannot be read counts as missing and is written anew."""
    try:
        return str(read_result(path / f"{spec.id}.json")["status"])
    except ValueError:
        return "missing"
