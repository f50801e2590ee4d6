"""How fast should weights be learned? Several problems, learning rates and seeds.

``units`` and ``burgers`` are in ``problems.py``, the other problems the package's own, at their settings.

``OMP_NUM_THREADS=1 MTLWEIGHTS_DATA=... python benchmarks/learned/run.py`` appends every run to
``results.jsonl`` beside this file (a run that is there is not done again) and writes ``results.md``.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from problems import burgers, units

from mtlweights import problems, train
from mtlweights.bench.run import execute
from mtlweights.bench.runspec import RunSpec

HERE = Path(__file__).parent
STRATEGIES = ("uw", "imtl_l", "ruw")
RATES = (1e-4, 3e-4, 1e-3, 5e-3, 0.025)
TITLE = """# How fast should weights be learned?

Written by `python benchmarks/learned/run.py`: mean over the seeds, with the least and the largest. `units`
are two regressions in one network, one in a unit 30 times larger; `burgers` is a physics-informed network on
Burgers' equation. A cell is empty where nothing was run.
"""
#: problem -> column -> what it is, in the order of the table
COLUMNS = {
    "units": {"one": "unexplained", "two": "unexplained"},
    "abalone": {"sex": "accuracy", "rings": "RMSE"},
    "breast_cancer": {"diagnosis": "accuracy", "radius": "RMSE"},
    "tagging": {"ner": "F1", "pos": "accuracy"},
    "burgers": {"MSE": "on the grid"},
}


def score(problem: str, strategy: str, options: dict[str, float], seed: int) -> dict[str, float]:
    """Column -> score on the test data."""
    if problem == "burgers":
        return burgers(strategy, options, seed, Path(os.environ["MTLWEIGHTS_DATA"]) / "pinn" / "Burgers.npz")
    if problem == "units":
        return units(strategy, options, seed)
    loaded = problems.load(problem)
    spec = strategy + "".join(f":weight_lr={rate}" for rate in options.values())
    settings = train.Settings(**{**loaded.settings, "seed": seed})
    fields = execute(RunSpec(problem, spec, None, settings), loaded, progress=False)
    return {task: next(iter(metrics.values())) for task, metrics in fields["test"].items()}


def plan(seeds: int) -> list[tuple[str, str, float | None, int]]:
    """Problem, strategy, learning rate of the weights and seed of all runs."""
    arms = [("equal", None), *((name, rate) for name in STRATEGIES for rate in RATES)]
    return [(p, s, rate, seed) for p in COLUMNS for seed in range(seeds) for s, rate in arms]


def table(runs: list[dict[str, Any]]) -> str:
    """Mean over the seeds, with the least and the largest."""
    columns = [(problem, metric) for problem, metrics in COLUMNS.items() for metric in metrics]
    arms = list(dict.fromkeys((run["strategy"], run["rate"]) for run in runs))
    heads = [f"{problem}: {metric}, {COLUMNS[problem][metric]}" for problem, metric in columns]
    lines = ["| strategy, rate | " + " | ".join(heads) + " |", "|---" * (len(columns) + 1) + "|"]
    for strategy, rate in sorted(arms, key=lambda arm: (arm[0] != "equal", arm[0], arm[1] or 0)):
        cells = [strategy if rate is None else f"{strategy}, {rate:g}"]
        for problem, metric in columns:
            found = [
                run["score"][metric]
                for run in runs
                if (run["problem"], run["strategy"], run["rate"]) == (problem, strategy, rate)
            ]
            cells.append(f"{np.mean(found):.3g} ({min(found):.3g} to {max(found):.3g})" if found else "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is not there yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    torch.set_num_threads(1)
    kept = HERE / "results.jsonl"
    runs = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    done = {(run["problem"], run["strategy"], run["rate"], run["seed"]) for run in runs}
    for problem, strategy, rate, seed in plan(seeds):
        if (problem, strategy, rate, seed) in done:
            continue
        found = score(problem, strategy, {} if rate is None else {"weight_lr": rate}, seed)
        run = {"problem": problem, "strategy": strategy, "rate": rate, "seed": seed, "score": found}
        runs.append(run)
        with kept.open("a") as file:
            file.write(json.dumps(run) + "\n")
        (HERE / "results.md").write_text(f"{TITLE}\n{table(runs)}\n", encoding="utf-8")
        print(run, flush=True)


if __name__ == "__main__":
    main()
