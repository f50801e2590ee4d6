"""TPE against random search at equal trials, and what a study's best is worth on seeds that chose nothing.

    python benchmarks/tune/samplers.py [OUT]

Each repetition is a study of its own, with its own seed for draws and training; the first trials (defaults,
equal weights) are the same in both. Epochs are few, so that all of it takes ten minutes of one core.
Studies and runs are kept in ``studies/samplers``: stopped and started again, it goes on.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mtlweights.bench.report.comparison import estimate
from mtlweights.bench.tune import Search, tune
from mtlweights.bench.tune.outcome import optimism
from mtlweights.bench.tune.study import slots_of

PROBLEMS: dict[str, dict[str, Any]] = {
    "tagging": {"epochs": 3, "batch_size": 16, "layers": 1, "hidden": 32},
    "abalone": {"epochs": 3},
}
STRATEGIES = ("cagrad", "fixed", "uw")
SAMPLERS = ("random", "tpe")
TRIALS, REPETITIONS, FRESH = 24, 5, 3
NAMED = len(STRATEGIES) + 1  #: first trials, the same in every study: defaults and equal weights
DIVERGED = -2.0  #: below every gain


def study(problem: str, sampler: str, repetition: int) -> dict[str, Any]:
    """Best mean gain after each trial, and the best on fresh seeds; equal runs of all studies are shared."""
    found = tune(
        problem,
        STRATEGIES,
        trials=TRIALS,
        study=f"{problem}-{sampler}-{repetition}",
        folder=Path("studies") / "samplers" / problem,
        narrowed=PROBLEMS[problem],
        search=Search(sampler, "none", repetition),
        fresh=FRESH,
        say=lambda _: None,
    )
    values = [trial.values[0] if trial.values else DIVERGED for trial in slots_of(found.study.trials)]
    best, default, equal = found.fresh
    return {
        "curve": [round(value, 5) for value in accumulate(values, max)],
        "strategy": best["strategy"],
        "gain": best["test"]["mean"],
        "ahead of its default": default["ahead"]["mean"],
        "ahead of equal weights": equal["ahead"]["mean"],
        "optimism": optimism(found.fresh),
    }


def main(out: Path) -> None:
    """Run what is missing in ``samplers.json``, and draw all of it."""
    file = out / "samplers.json"
    done: dict[str, dict[str, Any]] = json.loads(file.read_text()) if file.exists() else {}
    for repetition in range(REPETITIONS):
        for problem in PROBLEMS:
            for sampler in SAMPLERS:
                key = f"{problem} {sampler} {repetition}"
                if key not in done:
                    done[key] = study(problem, sampler, repetition)
                    file.write_text(json.dumps(done, indent=1) + "\n")
                    print(key, done[key], flush=True)
    tables(out, done)
    draw(out, done)


def values(done: dict[str, dict[str, Any]], problem: str, sampler: str, what: str) -> list[Any]:
    """One of a study's numbers, by repetition."""
    return [done[f"{problem} {sampler} {r}"][what] for r in range(REPETITIONS)]


def tables(out: Path, done: dict[str, dict[str, Any]]) -> None:
    """Both comparisons as Markdown."""
    lines = ["| problem | after trials | random | tpe | tpe ahead, paired |", "|---|---:|---:|---:|---:|"]
    for problem in PROBLEMS:
        curves = {sampler: values(done, problem, sampler, "curve") for sampler in SAMPLERS}
        for after in (NAMED, 8, 16, TRIALS):
            both = [[curve[after - 1] for curve in curves[sampler]] for sampler in SAMPLERS]
            cells = [*both, [tpe - random for random, tpe in zip(*both, strict=True)]]
            lines.append(f"| {problem} | {after} | {' | '.join(map(_said, cells))} |")
    what = ("gain", "ahead of its default", "ahead of equal weights", "optimism")
    lines += ["", f"| problem | sampler | {' | '.join(what)} |", "|---|---|" + "---:|" * len(what)]
    for problem in PROBLEMS:
        for sampler in SAMPLERS:
            cells = [_said(values(done, problem, sampler, name)) for name in what]
            lines.append(f"| {problem} | {sampler} | {' | '.join(cells)} |")
    (out / "samplers.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def draw(out: Path, done: dict[str, dict[str, Any]]) -> None:
    """The anytime curves, with 95 % intervals over the repetitions."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(PROBLEMS)), PROBLEMS, strict=True):
        for sampler in SAMPLERS:
            columns = zip(*values(done, problem, sampler, "curve"), strict=True)
            found = [e for column in columns if (e := estimate(list(column)))]
            steps, mean = range(1, len(found) + 1), [e.mean for e in found]
            axes.plot(steps, mean, label=sampler)
            low, high = ([e.mean + sign * (e.half or 0.0) for e in found] for sign in (-1, 1))
            axes.fill_between(steps, low, high, alpha=0.2)
        axes.axvline(NAMED + 0.5, color="0.6", linewidth=0.8, linestyle=":")
        axes.set(title=problem, xlabel="trials", ylabel="best validation gain so far")
        axes.legend(frameon=False, loc="lower right")
    figure.savefig(out / "samplers.svg", metadata={"Date": None})


def _said(numbers: list[float]) -> str:
    found = estimate(numbers)
    return "n/a" if found is None else f"{found.mean:+.4f} ± {found.half or 0:.4f}"


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else "benchmarks/results/tune/samplers")
    target.mkdir(parents=True, exist_ok=True)
    main(target)
