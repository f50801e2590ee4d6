"""run_suite: what is missing in a folder is computed, and the suite's results come back."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..files.escapes import visible
from .claims import KEPT, standing
from .front import front_arms
from .planning import prepare
from .pool import LIMIT, run_pool
from .protocol import Protocol, settle
from .recheck import recheck
from .resampling import resample
from .results import RUNS, read_result, runs_folder
from .run import run
from .runspec import RunSpec
from .selection import choose, keep
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
    check_again: int = 0,
    shard: tuple[int, int] = (1, 1),
    pool: Callable[..., None] | None = None,
) -> list[dict[str, Any]]:
    """Run what ``folder`` lacks and return the suite's results, failed ones included, in order.

    Under a budget the trials of every arm come first; each arm's best by validation is then run on the seeds
    that judge it, and what was chosen is kept in the folder.

    A run that is there is not computed again, nor is one that diverged; any other that failed is tried again,
    and so is one that cannot be read, or is of other data or of another file of one's own: that is said.
    Stopped at any moment and called again, it loses the runs in flight and no other. Several calls on one
    folder, also from several machines, share the runs.

    Args:
        jobs: processes at a time, by default one per ``threads`` cores.
        threads: torch threads of each process.
        overrides: settings over the suite's, for every problem.
        runner: what a worker calls with its :class:`RunSpec`; importable by name.
        limit_minutes: a run that takes longer is ended, and failed; by default a day.
        protocol: how the results are to be judged; by default a number of seeds chosen beforehand, and the
            suite's ``worth``. What was settled for the folder before stays, and that is said.
        check_again: of the results of other code of this library that many are computed again: if they come
            out the same, the others count as of this code, else all of them are computed again.
        shard: (i, n), the i-th of n parts of the work, each for a machine and a folder of its own; `merge`
            joins the folders.
        pool: what computes runs, as `pool.run_pool` does; by default that: processes of this machine.

    Raises:
        OSError: the folder cannot be written.
        ValueError: an option of a problem or a strategy, or a setting, is refused; or more jobs than cores.
    """
    jobs = jobs_of(jobs, threads)
    if not limit_minutes > 0:
        raise ValueError(f"limit_minutes should be above 0, found {limit_minutes!r}.")
    check_settings(overrides or {})
    path = runs_folder(folder).parent
    notes: list[str] = []
    plan = prepare(suite, overrides or {}, notes, shard=shard)
    notes += settle(protocol or Protocol(suite.worth), path)
    if progress:
        _say(notes)
    how: dict[str, Any] = {
        "jobs": jobs,
        "threads": threads,
        "progress": progress,
        "limit": 60 * limit_minutes,
    }
    missing = _Missing(path, partial(pool or run_pool, runner=runner, **how), progress, check_again)
    missing.run(plan.runs, "runs")
    specs = list(plan.runs)
    for name, arms in plan.by_problem().items():
        trials = list({run.id: run for arm in arms if len(arm.trials) > 1 for run in arm.trials}.values())
        missing.run(trials, f"trials on {name}")
        scores = {run.id: read_result(path / RUNS / f"{run.id}.json") for run in trials}
        choices = [choose(arm, scores) for arm in arms]
        swept = front_arms(arms, choices, plan.front[name])
        arms, choices = [*arms, *swept], [*choices, *(choose(arm, {}) for arm in swept)]
        keep(choices, path)
        finals = [run for arm, own in zip(arms, choices, strict=True) for run in arm.finals(own.chosen)]
        missing.run(finals, f"runs on {name}")
        specs += finals
    resample(specs, path)
    return [read_result(path / RUNS / f"{id}.json") for id in dict.fromkeys(spec.id for spec in specs)]


@dataclass(frozen=True)
class _Missing:
    """Computes what a folder lacks."""

    path: Path
    pool: Callable[..., None]
    progress: bool
    check_again: int

    def run(self, specs: Sequence[RunSpec], what: str) -> None:
        if not specs:
            return
        before = {spec.id: standing(spec, self.path) for spec in specs}
        old = [spec for spec in specs if before[spec.id][0] == "old"]
        again: list[RunSpec] = []
        if old and self.check_again:
            again, said = recheck(old, self.path, self.check_again, self.pool)
            _say(said if self.progress else ())
        missing = [*(spec for spec in specs if before[spec.id][0] not in KEPT), *again]
        if self.progress:
            _say([_plan(self.path, list(before.values()), len(missing), what)])
        if old and not self.check_again and self.progress:
            _say([f"{len(old)} {what} are of other code of this library: --recheck 3 computes 3 again"])
        if missing:
            self.pool(missing, folder=self.path)


def _say(lines: Sequence[str]) -> None:
    for line in lines:
        print(visible(line), file=sys.stderr)


def _plan(folder: Path, before: list[tuple[str, str]], missing: int, what: str) -> str:
    """What there is to do, and a line for every result that is not kept."""
    failed = [kind for kind, _ in before].count("failed")
    again = f", {failed} of them again because they failed" if failed else ""
    first = f"{len(before)} {what}: {len(before) - missing} in {folder} already, {missing} to do{again}"
    return "\n".join([first, *(f"again: {why}" for kind, why in before if why and kind not in KEPT)])


def jobs_of(jobs: int | None, threads: int) -> int:
    """How many runs at a time.

    Raises:
        ValueError: more than there are cores, or none.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if threads < 1 or (jobs is not None and jobs < 1):
        raise ValueError(f"jobs and threads should be at least 1, found jobs={jobs}, threads={threads}.")
    if (jobs or 1) * threads > cores:
        raise ValueError(
            f"{jobs or 1} jobs x {threads} threads are more than the {cores} cores here; lower one of them."
        )
    return jobs or cores // threads
