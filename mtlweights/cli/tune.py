"""An Optuna study: strategies, their hyperparameters, the loop's settings and the model's as one search.

  mtlweights tune tagging -s cagrad --trials 40
  mtlweights tune tagging -s all --trials 200 --storage study.log     n times, on one machine or many
  mtlweights tune tagging -s uw --fix lr=1e-3 --space space.yaml

The same command again goes on; started several times, the workers share one study and stop at --trials in
all. The test split is never read by a trial.
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from ..files.escapes import visible

NAME = "tune"
HELP = "Optuna study; the same command on n machines joins the same study"
RESUME = "the trial is queued again and goes on from its last epoch: run the same command again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("problem", metavar="PROBLEM", help="name[:key=value,...], conll:PATH, csv:PATH ...")
    parser.add_argument(
        "-s",
        "--strategy",
        action="append",
        required=True,
        metavar="STRATEGY",
        help="a strategy's spec, whose options stay fixed, or all; repeatable: then it is a choice too",
    )
    parser.add_argument("--trials", type=int, default=40, metavar="N", help="in all, of all workers [40]")
    parser.add_argument("--out", metavar="DIR", help="results folder (default: studies/STUDY)")
    where = parser.add_argument_group("study")
    where.add_argument("--study", metavar="NAME", help="its name (default: of problem and strategies)")
    where.add_argument(
        "--storage",
        metavar="URL",
        help="sqlite:///FILE, FILE.log (a journal, also on a shared disk), postgresql://..., mysql://..., or "
        "grpc://HOST:PORT of Optuna's proxy (default: SQLite in the results folder)",
    )
    where.add_argument(
        "--heartbeat",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="between two signs of life; a trial silent for four of them is another worker's [30]",
    )
    space = parser.add_argument_group("space")
    space.add_argument("--space", metavar="FILE", help="YAML: ranges in the place of those that are declared")
    space.add_argument(
        "--fix",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting, an option of the problem, or STRATEGY.HYPERPARAMETER; repeatable",
    )
    how = parser.add_argument_group("search")
    how.add_argument("--sampler", choices=("tpe", "gp", "random", "nsga"), default="tpe", help="[tpe]")
    how.add_argument("--pruner", choices=("median", "hyperband", "none"), default="median", help="[median]")
    how.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws and of every trial [0]")
    how.add_argument("--pareto", action="store_true", help="an objective per task, and no pruning")
    how.add_argument(
        "--limit",
        action="append",
        default=[],
        metavar="NAME=MOST",
        help="time of a step or peak memory (in those of plain training), or task (normalised score that a "
        "task may lose against single-task training); repeatable",
    )
    how.add_argument("--fresh", type=int, default=5, metavar="N", help="seeds of the last comparison [5]")
    how.add_argument("--threads", type=int, default=1, metavar="N", help="torch threads [1]")


def run(args: argparse.Namespace) -> int:
    """Search, compare on fresh seeds, print what was found; 1 if a trial failed."""
    if importlib.util.find_spec("optuna") is None:
        raise ImportError('mtlweights tune needs Optuna: pip install "mtlweights[tune]"')
    import torch

    from ..bench.tune import Aim, Search, tune
    from ..bench.tune.narrow import read_fixed, read_narrowed

    torch.set_num_threads(max(1, args.threads))  # one that is too low is refused below
    narrowed = (read_narrowed(args.space) if args.space else {}) | read_fixed(args.fix)
    found = tune(
        args.problem,
        args.strategy,
        trials=args.trials,
        study=args.study,
        storage=args.storage,
        folder=args.out,
        narrowed=narrowed,
        search=Search(args.sampler, args.pruner, args.seed),
        aim=Aim(args.pareto, _limits(args.limit)),
        fresh=args.fresh,
        interval=args.heartbeat,
        threads=args.threads,
        say=lambda line: print(visible(line), flush=True),
    )
    if found.fresh:
        print(_told(found.fresh))
    print(f"best:  {found.folder}/best.yaml\npage:  mtlweights report {found.folder}")
    return int(found.failed > 0)


def _limits(texts: list[str]) -> dict[str, float]:
    found = {}
    for text in texts:
        name, _, most = text.partition("=")
        try:
            found[name] = float(most)
        except ValueError:
            raise ValueError(f"--limit takes NAME=NUMBER, as in time=2; found {text!r}.") from None
    return found


def _told(rows: list[dict[str, Any]]) -> str:
    """The table on fresh seeds."""
    from ..bench.tune.outcome import optimism

    lines = [("", "validation gain", "test gain", "best is ahead by (test)")]
    lines += [(r["arm"], *(_interval(r[key]) for key in ("validation", "test", "ahead"))) for r in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
    note = f"\nThe best trial's own score, {rows[0]['tuned']:+.4f}, is {optimism(rows):+.4f} above that."
    return "\n".join(line.rstrip() for line in text) + note


def _interval(found: dict[str, Any] | None) -> str:
    if found is None:
        return ""
    half = "" if found["half"] is None else f" ± {found['half']:.4f}"
    return f"{found['mean']:+.4f}{half}"
