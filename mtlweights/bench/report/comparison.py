"""From results to numbers: arms against single-task training, one comparison per problem and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean, stdev
from typing import Any

from ..claims import diverged
from ..front import is_front
from ..protocol import Protocol
from ..runspec import SINGLE, problem_key
from ..selection import Choice
from ..statistics import Verdict
from . import testset
from .inference import EQUAL, Finding, Scores, findings, judged_by, references

Result = Mapping[str, Any]

#: arms everything else is judged by come first
_FIRST = ("fixed", "random")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half width of its 95 % Student t interval (None with fewer than two)."""

    mean: float
    half: float | None
    n: int


@dataclass(frozen=True)
class Column:
    """One metric of one task."""

    task: str
    metric: str
    higher_is_better: bool
    primary: bool


@dataclass(frozen=True)
class Row:
    """One arm; ``change`` (by task, + is better) and ``delta`` (%) are against single-task training."""

    arm: str
    ok: int
    failed: int
    scores: dict[Column, Estimate | None]
    change: dict[str, Estimate | None]
    delta: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """Everything run on one problem with one set of settings."""

    problem: str
    settings: dict[str, Any]  #: without the seed; with the data's digest where there are several
    seeds: list[int]
    columns: list[Column]
    rows: list[Row]
    results: list[Result]
    worth: float  #: the smallest difference that matters, Δm points
    findings: list[Finding]
    scores: Scores  #: arm -> task -> seed -> score on the first metric, + is better
    front: Scores  #: the same of static weights that are no arms: shown, not judged
    choices: list[Choice]  #: what the arms chose, under a budget
    test_halves: dict[tuple[str, str], float]  #: see `testset.halves`
    base: str = EQUAL  #: what arms are judged by beside single-task training

    @property
    def against(self) -> str | None:
        """What arms are judged by first, see `inference.judged_by`."""
        return judged_by([row.arm for row in self.rows], self.base)

    @property
    def tasks(self) -> list[str]:
        """Task names, in the problem's order."""
        return list(dict.fromkeys(column.task for column in self.columns))

    def verdict(self, arm: str, against: str, what: str) -> Verdict | None:
        """The verdict on an arm, None where it could not be judged."""
        key = (arm, against, what)
        return next((f.verdict for f in self.findings if (f.arm, f.against, f.what) == key), None)

    def of(self, arm: str) -> list[Result]:
        """The results of one arm."""
        return [result for result in self.results if arm_of(result) == arm]


def compare(
    results: Iterable[Result], protocol: Protocol | None = None, choices: Sequence[Choice] = ()
) -> list[Comparison]:
    """Group results by problem, settings and data, never averaging over two, and judge within a group.

    With the ``choices`` made under budgets, results are `selection.labelled`.

    Raises:
        ValueError: no results, or one run (problem, arm, task, seed, settings) given twice.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    results = list(results)
    data = _data(results)
    seen: set[str] = set()
    for result in results:
        once = f"{result['id']} {result.get('budget')} {result.get('axis')} {result.get('arm')}"
        if once in seen:
            raise ValueError(f"run {result['id']} is given twice; each run may count once.")
        seen.add(once)
        key = (*_setup(result), data[result["id"]])
        groups.setdefault(key, []).append(result)
    if not groups:
        raise ValueError("there are no results to report.")
    settled = protocol or Protocol()
    return [
        _comparison(problem, content, group, settled, choices)
        for (problem, _, content), group in groups.items()
    ]


def verdicts(results: Iterable[Result], protocol: Protocol | None = None) -> list[dict[str, Any]]:
    """Every verdict, as numbers that others can check from the result files.

    Each has problem, budget and axis (None without one), arm, against, what (Δm or a task), mean, low, high
    (points of per cent of single-task training; None is infinite), p (Holm over the arms), verdict, seeds,
    more_seeds.

    Raises:
        ValueError: no results, or one run given twice.
    """
    return [
        {**finding.as_dict(), **{key: comparison.settings.get(key) for key in ("budget", "axis")}}
        for comparison in compare(results, protocol)
        for finding in comparison.findings
    ]


def _setup(result: Result) -> tuple[str, str]:
    """What is compared within: settings, or a budget, under which every arm has settings of its own."""
    own = result.get("budget") or _without_seed(result["settings"])
    return result["problem"], json.dumps([own, result.get("axis")], sort_keys=True)


def _data(results: list[Result]) -> dict[str, str]:
    """Run -> its data, as far as they tell runs of one problem and settings from each other, else "".

    A run from before the data were kept goes with the others if those agree.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for result in results:
        found.setdefault(_setup(result), set()).update(filter(None, [result.get("data")]))
    return {r["id"]: (r.get("data") or "unknown")[:8] if len(found[_setup(r)]) > 1 else "" for r in results}


def arm_of(result: Result) -> str:
    """The arm a result belongs to: its strategy, or ``single`` for a task trained alone.

    Under a budget the strategy of a result has what was chosen for the arm in it.
    """
    if "arm" in result:
        return str(result["arm"])
    return SINGLE if result["only"] is not None else str(result["strategy"])


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and 95 % t interval; None without a value."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return Estimate(values[0], None, 1) if n else None
    return Estimate(fmean(values), float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n), n)


def _comparison(
    problem: str, data: str, results: list[Result], protocol: Protocol, choices: Sequence[Choice]
) -> Comparison:
    swept = [result for result in results if is_front(arm_of(result))]
    results = [result for result in results if not is_front(arm_of(result))]
    columns = _columns(results)
    base = str(results[0].get("base", EQUAL))
    arms = sorted(dict.fromkeys(map(arm_of, results)), key=partial(_place, base))
    rows = [_row(arm, results, columns) for arm in arms]
    seeds = sorted({result["seed"] for result in results})
    settings = _common(results) | ({"data": data} if data else {})
    scores = _scores(results, arms, columns)
    judged = findings(problem, scores, protocol, base)
    worth = protocol.worth_of(problem)
    front = _scores(swept, list(dict.fromkeys(map(arm_of, swept))), columns)
    this = (settings.get("budget"), settings.get("axis"), problem_key(problem))
    own = [c for c in choices if (c.budget, c.axis[0] if c.axis else None, problem_key(c.problem)) == this]
    own = [c for c in own if not is_front(c.arm)]
    by_arm = {arm: [result for result in results if arm_of(result) == arm] for arm in arms}
    signs = {column.task: 1 if column.higher_is_better else -1 for column in columns if column.primary}
    halves = testset.halves(by_arm, signs, references(arms, base))
    found = (problem, settings, seeds, columns, rows, results, worth, judged, scores, front, own, halves)
    return Comparison(*found, base)


def _columns(results: list[Result]) -> list[Column]:
    """From the run that knows most tasks: one that trained them together, if there is any."""
    tasks: dict[str, Any] = {}
    for result in sorted(results, key=lambda result: -len(result["tasks"])):
        for name, task in result["tasks"].items():
            tasks.setdefault(name, task)
    return [
        Column(name, metric, task["higher_is_better"][metric], metric == task["metrics"][0])
        for name, task in tasks.items()
        for metric in task["metrics"]
    ]


def _row(arm: str, results: list[Result], columns: list[Column]) -> Row:
    own = [result for result in results if arm_of(result) == arm]
    scores = {column: estimate(list(_by_seed(own, column).values())) for column in columns}
    change: dict[str, Estimate | None] = {}
    relative: list[dict[int, float]] = []
    single = [result for result in results if result["only"] is not None]
    for column in columns if arm != SINGLE else ():
        if column.primary:
            differences, denominator = _paired(own, single, column)
            change[column.task] = estimate(list(differences.values()))
            relative.append({s: 100 * d / denominator for s, d in differences.items()} if denominator else {})
    shared = set.intersection(*map(set, relative)) if relative else set()
    delta = estimate([fmean(task[seed] for task in relative) for seed in sorted(shared)])
    ok = sum(result["status"] == "ok" for result in own)
    return Row(arm, ok, len(own) - ok, scores, change, delta)


def _scores(results: list[Result], arms: list[str], columns: list[Column]) -> Scores:
    """Arm -> task -> seed -> score on the task's first metric, + is better.

    A run that diverged, or whose score is not a number, counts as the worst there is.
    """
    out: dict[str, dict[str, dict[int, float]]] = {arm: {} for arm in arms}
    for column in columns:
        if not column.primary:
            continue
        sign = 1 if column.higher_is_better else -1
        known = [sign * value for result in results if (value := _value(result, column)) is not None]
        for result in results:
            if result["only"] not in (None, column.task) or not (
                result["status"] == "ok" or diverged(result)
            ):
                continue
            value = _value(result, column)
            score = min(known, default=None) if value is None else sign * value
            if score is not None:
                out[arm_of(result)].setdefault(column.task, {})[result["seed"]] = score
    return out


def _value(result: Result, column: Column) -> float | None:
    value = result["test"].get(column.task, {}).get(column.metric) if result["status"] == "ok" else None
    return float(value) if value is not None and math.isfinite(value) else None


def _by_seed(results: list[Result], column: Column) -> dict[int, float]:
    found = {}
    for result in results:
        value = _value(result, column)
        if value is not None:
            found[result["seed"]] = value
    return dict(sorted(found.items()))


def _paired(own: list[Result], single: list[Result], column: Column) -> tuple[dict[int, float], float]:
    """Improvement over the single-task run of the same seed, and the size of those runs' mean."""
    scores, alone = _by_seed(own, column), _by_seed(single, column)
    sign = 1 if column.higher_is_better else -1
    differences = {seed: sign * (scores[seed] - alone[seed]) for seed in scores if seed in alone}
    return differences, abs(fmean(alone[seed] for seed in differences)) if differences else 0.0


def _place(base: str, arm: str) -> tuple[int, str]:
    first, name = (SINGLE, base, *_FIRST), arm.split(":")[0]
    name = arm if arm == base else name
    return (first.index(name) if name in first else len(first), arm)


def _common(results: list[Result]) -> dict[str, Any]:
    """The settings that all runs share, and the budget under which they do not share the rest."""
    first, *rest = (_without_seed(result["settings"]) for result in results)
    under = {key: results[0][key] for key in ("budget", "axis") if results[0].get(key)}
    shared = {k: value for k, value in first.items() if all(other.get(k) == value for other in rest)}
    return shared | under


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "seed"}
