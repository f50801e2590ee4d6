"""From results to numbers: arms against single-task training, one comparison per problem and settings."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from ..runspec import SINGLE

Result = Mapping[str, Any]

#: arms everything else is judged by come first
_FIRST = (SINGLE, "equal", "fixed", "random")
FEWEST_SEEDS = 3  #: of a verdict
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and the half width of its 95 % Student t interval (None with fewer than two)."""

    mean: float
    half: float | None
    n: int

    @property
    def verdict(self) -> str:
        """Of a change: ``"better"`` or ``"worse"`` if the interval leaves out 0, else ``"unresolved"``.

        Unresolved too: fewer than `FEWEST_SEEDS`, and an interval of no width but rounding. Equal changes are
        the same few test items, no certainty.
        """
        if self.half is None or self.n < FEWEST_SEEDS or not _ROUNDING * abs(self.mean) < self.half:
            return "unresolved"
        if not abs(self.mean) > self.half:
            return "unresolved"
        return "better" if self.mean > 0 else "worse"


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

    @property
    def tasks(self) -> list[str]:
        """Task names, in the problem's order."""
        return list(dict.fromkeys(column.task for column in self.columns))

    def of(self, arm: str) -> list[Result]:
        """The results of one arm."""
        return [result for result in self.results if arm_of(result) == arm]


def compare(results: Iterable[Result]) -> list[Comparison]:
    """Group results by problem, settings and data, never averaging over two, and compare within a group.

    Raises:
        ValueError: no results, or one run (problem, arm, task, seed, settings) given twice.
    """
    groups: dict[tuple[str, str, str], list[Result]] = {}
    results = list(results)
    data = _data(results)
    seen: set[str] = set()
    for result in results:
        if result["id"] in seen:
            raise ValueError(f"run {result['id']} is given twice; each run may count once.")
        seen.add(result["id"])
        key = (*_setup(result), data[result["id"]])
        groups.setdefault(key, []).append(result)
    if not groups:
        raise ValueError("there are no results to report.")
    return [_comparison(problem, content, group) for (problem, _, content), group in groups.items()]


def _setup(result: Result) -> tuple[str, str]:
    return result["problem"], json.dumps(_without_seed(result["settings"]), sort_keys=True)


def _data(results: list[Result]) -> dict[str, str]:
    """Run -> its data, as far as they tell runs of one problem and settings from each other, else "".

    A run from before the data were kept goes with the others if those agree.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for result in results:
        found.setdefault(_setup(result), set()).update(filter(None, [result.get("data")]))
    return {r["id"]: (r.get("data") or "unknown")[:8] if len(found[_setup(r)]) > 1 else "" for r in results}


def arm_of(result: Result) -> str:
    """The arm a result belongs to: its strategy, or ``single`` for a task trained alone."""
    return SINGLE if result["only"] is not None else str(result["strategy"])


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and 95 % t interval; None without a value."""
    from scipy.stats import t

    n = len(values)
    if n < 2:
        return Estimate(values[0], None, 1) if n else None
    return Estimate(fmean(values), float(t.ppf(0.975, n - 1)) * stdev(values) / math.sqrt(n), n)


def _comparison(problem: str, data: str, results: list[Result]) -> Comparison:
    columns = _columns(results)
    arms = sorted(dict.fromkeys(map(arm_of, results)), key=_place)
    rows = [_row(arm, results, columns) for arm in arms]
    seeds = sorted({result["seed"] for result in results})
    settings = _without_seed(results[0]["settings"]) | ({"data": data} if data else {})
    return Comparison(problem, settings, seeds, columns, rows, results)


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


def _by_seed(results: list[Result], column: Column) -> dict[int, float]:
    found = {}
    for result in results:
        value = result["test"].get(column.task, {}).get(column.metric)
        if result["status"] == "ok" and value is not None and math.isfinite(value):
            found[result["seed"]] = float(value)
    return dict(sorted(found.items()))


def _paired(own: list[Result], single: list[Result], column: Column) -> tuple[dict[int, float], float]:
    """Improvement over the single-task run of the same seed, and the size of those runs' mean."""
    scores, alone = _by_seed(own, column), _by_seed(single, column)
    sign = 1 if column.higher_is_better else -1
    differences = {seed: sign * (scores[seed] - alone[seed]) for seed in scores if seed in alone}
    return differences, abs(fmean(alone[seed] for seed in differences)) if differences else 0.0


def _place(arm: str) -> tuple[int, str]:
    name = arm.split(":")[0]
    return (_FIRST.index(name) if name in _FIRST else len(_FIRST), arm)


def _without_seed(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key != "seed"}
