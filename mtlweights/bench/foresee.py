"""What a bench would run, and how long it would take by what was measured so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from ..problems import scales
from .claims import KEPT, standing
from .front import SEEDS, front_arms
from .planning import Plan, prepare
from .results import RUNS, read_result
from .runspec import RunSpec
from .selection import choose
from .suite import Suite


def foresee(
    suite: Suite, folder: str | Path, overrides: Mapping[str, Any], jobs: int, **which: Any
) -> list[str]:
    """A line per problem: what there is, what is to do, how long that takes with ``jobs`` at a time.

    Nothing is trained and nothing written.

    Raises:
        ValueError: as `planning.prepare`.
    """
    notes: list[str] = []
    plan = prepare(suite, overrides, notes, **which)
    path, lines, total, unmeasured = Path(folder), list(notes), 0.0, False
    names = list(dict.fromkeys([*(run.problem for run in plan.runs), *plan.by_problem()]))
    for name in names:
        runs, unknown = _runs(plan, name, path)
        left = [run for run in runs if standing(run, path)[0] not in KEPT]
        rate = _seconds(name, path)
        todo = len(left) + unknown
        total += todo * (rate or 0.0)
        unmeasured |= bool(todo) and not rate
        time = f", {_span(todo * rate / jobs)} at {rate:.1f} s a run" if rate and todo else ""
        after = f" ({unknown} of them once their trials are known)" if unknown else ""
        lines.append(f"{name}: {len(runs) + unknown} runs, {todo} to do{after}{time}")
    if not total and not unmeasured:
        return [*lines, "nothing to do"]
    if not total:
        return [*lines, "no run has been measured yet"]
    rest = "; a line without a time: nothing of it was measured yet" if unmeasured else ""
    return [*lines, f"together {_span(total / jobs)}, {jobs} at a time{rest}"]


def _runs(plan: Plan, name: str, folder: Path) -> tuple[list[RunSpec], int]:
    """The runs on a problem, each once, and how many more follow from trials that are missing."""
    runs, unknown = [run for run in plan.runs if run.problem == name], 0
    for arm in plan.by_problem().get(name, ()):
        swept = plan.front[name] if arm.name == "equal" and arm.only is None else ()
        trials = arm.trials if len(arm.trials) > 1 else ()
        scores = {run.id: _result(run, folder) for run in trials}
        runs += trials
        if None in scores.values():
            unknown += len(arm.seeds) + len(swept) * len(arm.seeds[:SEEDS])
        else:
            choice = choose(arm, {key: r for key, r in scores.items() if r})
            runs += arm.finals(choice.chosen)
            runs += [run for point in front_arms([arm], [choice], swept) for run in point.finals(0)]
    return list({run.id: run for run in runs}.values()), unknown


def _result(run: RunSpec, folder: Path) -> dict[str, Any] | None:
    return read_result(folder / RUNS / f"{run.id}.json") if standing(run, folder)[0] in KEPT else None


def _seconds(problem: str, folder: Path) -> float | None:
    """Mean time of the runs on a problem, or on the same with other factors; None without any."""
    found = []
    for path in (folder / RUNS).glob("[!.]*.json"):
        try:
            result = read_result(path)
        except (ValueError, OSError):
            continue
        if scales.split(result["problem"])[0] == scales.split(problem)[0] and result["seconds"]:
            found.append(result["seconds"])
    return fmean(found) if found else None


def _span(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{max(1, round(seconds / 60))} min"
