"""Many runs of one arm on one problem, for the A/A test on real runs.

``python benchmarks/proof/one_arm.py`` trains equal weights on ``tagging`` with 90 seeds, in a bench's folder
that a second call goes on in, and writes ``one_arm.json``: Δm of each in per cent of the mean.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from statistics import fmean

from mtlweights import problems
from mtlweights.bench import RunSpec, read_results
from mtlweights.bench.budget import seed_of
from mtlweights.bench.claims import KEPT, standing
from mtlweights.bench.code import library
from mtlweights.bench.pool import run_pool
from mtlweights.bench.results import runs_folder
from mtlweights.bench.run import run
from mtlweights.train import Settings

HERE = Path(__file__).parent


def main() -> None:
    """Run what is missing and write the values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--problem", default="tagging")
    parser.add_argument("--runs", type=int, default=90)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", default="results/one_arm")
    plan = parser.parse_args()
    folder = runs_folder(plan.out).parent
    problem = problems.load(plan.problem)
    specs = [
        RunSpec(
            plan.problem,
            "equal",
            None,
            Settings(**{**problem.settings, "seed": seed_of(plan.problem, 1000 + number)}),
            problems.digest(problem),
            library=library(plan.problem, "equal"),
        )
        for number in range(plan.runs)
    ]
    missing = [spec for spec in specs if standing(spec, folder)[0] not in KEPT]
    run_pool(missing, run, folder, jobs=plan.jobs, threads=1, progress=True)
    results = read_results(folder)
    primary = {task.name: (task.metrics[0], 1 if task.higher_is_better else -1) for task in problem.tasks}
    scores = {t: [sign * r["test"][t][m] for r in results] for t, (m, sign) in primary.items()}
    mean = {task: fmean(own) for task, own in scores.items()}
    values = [
        fmean(100 * (scores[task][k] - mean[task]) / abs(mean[task]) for task in scores)
        for k in range(len(results))
    ]
    what = f"{len(results)} of equal weights on {plan.problem}"
    (HERE / "one_arm.json").write_text(json.dumps({"what": what, "values": values}, indent=1) + "\n")


if __name__ == "__main__":
    main()
