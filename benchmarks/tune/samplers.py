"""TPE against random search at equal trials: the best gain so far, over repetitions.

    python benchmarks/tune/samplers.py [OUT]

Each repetition is a study of its own, with its own seed for draws and training; the first trials (defaults,
equal weights) are the same in both. Epochs are few, so that all of it takes minutes.
"""

from __future__ import annotations

import json
import sys
import tempfile
from itertools import accumulate
from pathlib import Path

from matplotlib.figure import Figure

from mtlweights.bench.report.comparison import estimate
from mtlweights.bench.tune import Search, tune
from mtlweights.bench.tune.study import slots_of

PROBLEMS = {"tagging": {"epochs": 2, "layers": 1, "hidden": 64}, "abalone": {"epochs": 4}}
STRATEGIES = ("cagrad", "fixed", "uw")
SAMPLERS = ("random", "tpe")
TRIALS, REPETITIONS = 24, 5


def curve(problem: str, sampler: str, repetition: int, folder: Path) -> list[float]:
    """The best mean gain after each trial; runs are shared between the samplers where they are the same."""
    found = tune(
        problem,
        STRATEGIES,
        trials=TRIALS,
        study=f"{problem}-{sampler}-{repetition}",
        folder=folder / f"{problem}-{repetition}",
        narrowed=PROBLEMS[problem],
        search=Search(sampler, "none", repetition),
        fresh=0,
        say=lambda _: None,
    )
    values = [trial.values[0] if trial.values else -2.0 for trial in slots_of(found.study.trials)]
    return list(accumulate(values, max))


def main(out: Path) -> None:
    """Run what is missing in ``curves.json``, and draw all of it."""
    file = out / "curves.json"
    curves = json.loads(file.read_text()) if file.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(REPETITIONS):
            for problem in PROBLEMS:
                for sampler in SAMPLERS:
                    key = f"{problem} {sampler} {repetition}"
                    if key not in curves:
                        curves[key] = curve(problem, sampler, repetition, Path(folder))
                        file.write_text(json.dumps(curves, indent=1) + "\n")
                        print(key, f"{curves[key][-1]:+.4f}", flush=True)
    write(out, curves)


def write(out: Path, curves: dict[str, list[float]]) -> None:
    """The table and the figure."""
    lines = ["| problem | after | random | tpe | tpe ahead, paired |", "|---|---:|---:|---:|---:|"]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    for axes, problem in zip(figure.subplots(1, len(PROBLEMS)), PROBLEMS, strict=True):
        done = [r for r in range(REPETITIONS) if all(f"{problem} {s} {r}" in curves for s in SAMPLERS)]
        both = {s: [curves[f"{problem} {s} {r}"] for r in done] for s in SAMPLERS}
        for sampler, runs in both.items():
            found = [estimate(list(column)) for column in zip(*runs, strict=True)]
            mean, half = [e.mean for e in found], [e.half or 0.0 for e in found]
            steps = range(1, len(mean) + 1)
            axes.plot(steps, mean, label=sampler)
            low, high = ([m + sign * h for m, h in zip(mean, half, strict=True)] for sign in (-1, 1))
            axes.fill_between(steps, low, high, alpha=0.2)
        axes.set(title=problem, xlabel="trials", ylabel="best mean gain so far")
        axes.legend(frameon=False)
        for after in (8, 16, TRIALS):
            ahead = [b[after - 1] - a[after - 1] for a, b in zip(both["random"], both["tpe"], strict=True)]
            cells = [_said([run[after - 1] for run in both[s]]) for s in SAMPLERS]
            lines.append(f"| {problem} | {after} | {' | '.join(cells)} | {_said(ahead)} |")
    figure.savefig(out / "curves.svg", metadata={"Date": None})
    (out / "curves.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def _said(values: list[float]) -> str:
    found = estimate(values)
    return "n/a" if found is None else f"{found.mean:+.4f} ± {found.half or 0:.4f}"


if __name__ == "__main__":
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent)
    target.mkdir(parents=True, exist_ok=True)
    main(target)
