"""What the problems on published data reach, beside what is published: results.jsonl and results.md.

  python benchmarks/levels/run.py                 what is missing, one run after another
  python benchmarks/levels/run.py snips helmholtz that of these problems
  python benchmarks/levels/run.py --write         the page alone, from the runs there are

A run is a problem with its own settings, a strategy and a seed, as `mtlweights train` does it. The folds of a
table of Mulan's are its seeds. Ridge regression on the same rows is computed by the way.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from mtlweights import problems, train
from mtlweights.bench.run import execute
from mtlweights.bench.runspec import RunSpec
from mtlweights.problems import Problem
from mtlweights.problems.data.mulan import TABLES

FOLDER = Path(__file__).parent
RESULTS, PAGE = FOLDER / "results.jsonl", FOLDER / "results.md"
SEEDS, FOLDS = (0, 1, 2), 3  #: of the ten folds the first ones


class Level(NamedTuple):
    """A number of a problem that is compared."""

    problem: str
    metric: str
    task: str  #: "" for the mean over tasks
    published: str
    scale: float = 1.0


#: what is published, and where; docs/levels.md says how far the settings are the same
LEVELS = [
    Level("snips", "span_f1", "slots", "88.8 (Goo et al. 2018)", 100),
    Level("snips", "accuracy", "intent", "97.0 (Goo et al. 2018)", 100),
    Level("atis", "span_f1", "slots", "95.2 (Goo et al. 2018)", 100),
    Level("atis", "accuracy", "intent", "94.1 (Goo et al. 2018)", 100),
    Level("tox21", "auroc", "", "0.807 ± 0.011 (a BiLSTM on SMILES, 2025)"),
    Level("census", "auroc", "income", "0.915 (shared bottom, Ma et al. 2018)"),
    Level("census", "auroc", "never_married", "0.975 (shared bottom, Ma et al. 2018)"),
    Level("burgers", "relative_l2", "", "0.0046 (Bischof and Kraus 2021)"),
    Level("helmholtz", "relative_l2", "", "0.011 (Bischof and Kraus 2021)"),
]
STRATEGIES = {"burgers": ("equal", "config"), "helmholtz": ("equal", "config")}
TABLES_OF_MULAN = {
    f"mulan:{table}": [f"mulan:{table}:fold={fold}" for fold in range(1, 11)] for table in TABLES
}


def runs(names: list[str]) -> Iterator[tuple[str, str, str, int]]:
    """Problem, its spec, strategy and seed of every run."""
    for problem in dict.fromkeys(level.problem for level in LEVELS):
        for seed in SEEDS:
            for strategy in STRATEGIES.get(problem, ("equal",)):
                if not names or problem in names:
                    yield problem, problem, strategy, seed
    for problem, specs in TABLES_OF_MULAN.items():
        for seed, spec in enumerate(specs[:FOLDS]):
            if not names or problem in names or "mulan" in names:
                yield problem, spec, "equal", seed


def run(problem: str, spec: str, strategy: str, seed: int) -> dict:
    """The test scores of a run."""
    loaded = problems.load(spec)
    settings = train.Settings(**{**loaded.settings, "device": "cpu", "seed": seed})
    start = time.process_time()
    found = execute(RunSpec(spec, strategy, None, settings), loaded, progress=False)
    row = {"problem": problem, "spec": spec, "strategy": strategy, "seed": seed, "test": found["test"]}
    row |= {"best_epoch": found["best_epoch"], "epochs": settings.epochs, "steps": found["steps"]}
    row |= {"seconds": round(time.process_time() - start, 1)}
    if problem.startswith("mulan:"):
        row["ridge"] = ridge(loaded)
    return row


def ridge(problem: Problem) -> float:
    """aRRMSE of ridge regression on training and development rows, its penalty by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    known = [row for part in ("train", "dev") for row in problem.splits[part]]
    x, unseen = (np.array([row["input"] for row in rows]) for rows in (known, problem.splits["test"]))
    model = make_pipeline(StandardScaler(), RidgeCV(np.logspace(-3, 5, 17)))
    scores = []
    for task in problem.tasks:
        y = np.array([row["targets"][task.name] for row in known])
        guess = model.fit(x, y).predict(unseen)
        target = np.array([row["targets"][task.name] for row in problem.splits["test"]])
        scores += [task.score([torch.from_numpy(guess)], [torch.from_numpy(target)])["rrmse"]]
    return float(np.mean(scores))


def interval(values: list[float], scale: float = 1.0, digits: int = 3) -> str:
    """Mean and half width of the 95 % t interval."""
    if len(values) < 2:
        return f"{scale * values[0]:.{digits}f}"
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return f"{scale * np.mean(values):.{digits}f} ± {scale * half:.{digits}f}"


def score(row: dict, metric: str, task: str) -> float:
    """A metric of a run, of one task or the mean."""
    return float(
        np.mean([scores[metric] for name, scores in row["test"].items() if name == task or not task])
    )


def row_of(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def levels(rows: list[dict]) -> Iterator[str]:
    """Lines of the table of `LEVELS`."""
    yield row_of("problem", "task", "metric", "strategy", "reached", "seeds", "CPU s a run", "published")
    yield "|---" * 8 + "|"
    for level in LEVELS:
        for strategy in STRATEGIES.get(level.problem, ("equal",)):
            mine = [row for row in rows if (row["problem"], row["strategy"]) == (level.problem, strategy)]
            if mine:
                values = [score(row, level.metric, level.task) for row in mine]
                reached = interval(values, level.scale, 1 if level.scale > 1 else 3)
                seconds = f"{np.mean([row['seconds'] for row in mine]):.0f}"
                cells = [f"`{level.problem}`", level.task or "mean", level.metric, f"`{strategy}`", reached]
                yield row_of(*cells, str(len(mine)), seconds, level.published)


def tables(rows: list[dict]) -> Iterator[str]:
    """Lines of the table of Mulan's tables."""
    yield row_of("table", "targets", "aRRMSE", "ridge, same folds", "folds", "CPU s a fold")
    yield "|---" * 6 + "|"
    for problem in TABLES_OF_MULAN:
        mine = [row for row in rows if row["problem"] == problem]
        if mine:
            reached = interval([score(row, "rrmse", "") for row in mine])
            other = interval([row["ridge"] for row in mine])
            seconds = f"{np.mean([row['seconds'] for row in mine]):.1f}"
            targets = str(TABLES[problem.removeprefix("mulan:")])
            yield row_of(f"`{problem}`", targets, reached, other, str(len(mine)), seconds)


def main() -> None:
    """Run what is missing, write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help="problems; mulan for all its tables")
    parser.add_argument("--write", action="store_true", help="no run, the page alone")
    args = parser.parse_args()
    rows = [json.loads(line) for line in RESULTS.read_text("utf-8").splitlines()] if RESULTS.exists() else []
    done = {(row["spec"], row["strategy"], row["seed"]) for row in rows}
    for problem, spec, strategy, seed in () if args.write else runs(args.names):
        if (spec, strategy, seed) not in done:
            rows.append(run(problem, spec, strategy, seed))
            with RESULTS.open("a", encoding="utf-8") as file:
                file.write(json.dumps(rows[-1]) + "\n")
            print(
                spec,
                strategy,
                seed,
                {k: v for k, v in rows[-1].items() if k in ("test", "seconds")},
                flush=True,
            )
    PAGE.write_text("\n".join([*levels(rows), "", *tables(rows), ""]), encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
