"""One run: a progress bar, a checkpoint after every epoch, the scores on the test split, the model's folder.

The same command again continues from the last checkpoint. The folder DIR/model is for mtlweights predict,
export, compress and serve. Over several processes, with the same outcome:

  torchrun --nproc-per-node 2 -m mtlweights train PROBLEM -s STRATEGY
  accelerate launch -m mtlweights train PROBLEM -s STRATEGY

Your own data:

  mtlweights train conll:FILE -s pcgrad --tags ner=3 pos=upos
  mtlweights train csv:FILE -s uw --classify kind --regress price

What a study found, its best.yaml, or a suite of one problem and one strategy: mtlweights train FILE.yaml
"""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..files.escapes import visible
from ..problems.task import IN_UNITS
from ..specs import format_spec, parse_spec
from .leaving import leave_model
from .settings import add_settings, given_settings

if TYPE_CHECKING:
    from torch import nn

    from ..bench.runspec import RunSpec
    from ..problems import Problem
    from ..train.understood import Understanding

NAME = "train"
HELP = "one run: progress bar, checkpoint, resumable"
_STRATEGY = "name[:key=value,...], see mtlweights list; or your own, FILE.py:Class or module:Class"
RESUME = "run the same command again to continue from the last finished epoch"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "problem", metavar="PROBLEM", help="name[:key=value,...], conll:PATH, csv:PATH ... or a YAML"
    )
    arm = parser.add_mutually_exclusive_group()
    arm.add_argument("-s", "--strategy", metavar="STRATEGY", help=_STRATEGY)
    arm.add_argument("--task", metavar="NAME", help="instead of a strategy: train this one task alone")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of the run (default: runs/PROBLEM--STRATEGY--SEED)"
    )
    parser.add_argument(
        "--understand",
        action="store_true",
        help="leave what the page draws of the model: gradients by layer and epoch, which task helps which, "
        "what words add, states",
    )
    parser.add_argument("--trackers", nargs="+", default=(), metavar="NAME", help="tensorboard, wandb")
    columns = parser.add_argument_group(
        "columns of your own data", "the same as key=value after the problem's name"
    )
    columns.add_argument("--tags", nargs="+", metavar="TASK=COLUMN", help="conll: task and its column")
    columns.add_argument("--tokens", metavar="COLUMN", help="conll: the column of the words")
    columns.add_argument("--classify", nargs="+", metavar="COLUMN", help="tables: columns to classify")
    columns.add_argument(
        "--regress", nargs="+", metavar="COLUMN", help="tables: columns of numbers to predict"
    )
    columns.add_argument("--ignore", nargs="+", metavar="COLUMN", help="tables: columns that are no inputs")
    add_settings(parser)


def run(args: argparse.Namespace) -> int:
    """Train, score the test split, write the result."""
    from .. import problems, train
    from ..bench.results import runs_folder
    from ..bench.run import code_of, execute
    from ..bench.runspec import SINGLE, RunSpec
    from ..train.processes import join, leave

    if args.strategy == SINGLE:
        raise ValueError(f"{SINGLE!r} is a row of mtlweights bench; to train one task alone use --task NAME.")
    given = given_settings(args)
    if args.problem.endswith((".yaml", ".yml")):
        args.problem, args.strategy, own = _read_suite(args)
        given = {**own, **given}
    if not (args.strategy or args.task):
        raise ValueError("say how to train: -s/--strategy, or --task for one task alone.")
    name = _problem(args)
    folder = Path(args.out or Path("runs") / _folder_name(name, args, given.get("seed", 0)))
    processes = join()
    if args.understand and processes.number > 1:
        raise ValueError("--understand looks at a run of one process: leave the launcher out, or the option.")
    processes.same(lambda: runs_folder(folder))  # before any work: one that cannot be written would waste it
    problem = processes.each_machine_first(lambda: problems.load(name))
    settings = train.Settings(**{**problem.settings, **given})
    strategy = "equal" if args.strategy is None else args.strategy
    spec = RunSpec(name, strategy, args.task, settings, problems.digest(problem), code_of(strategy))
    trained: list[Any] = []
    looking: list[Understanding] = []
    more: dict[str, Any] = {"watch": partial(_look, folder, looking)} if args.understand else {}
    fields = execute(spec, problem, keep=trained.append, folder=folder, trackers=args.trackers, **more)
    leave()
    for each in looking:
        each.end(trained[0])
    if processes.first:
        _tell(spec, problem, fields, trained[0], folder)
    return 0


def _look(folder: Path, looking: list[Understanding], model: nn.Module, problem: Problem) -> Understanding:
    from ..train.understood import Understanding

    looking.append(Understanding(model, problem, folder))
    return looking[-1]


def _tell(spec: RunSpec, problem: Problem, fields: dict[str, Any], model: nn.Module, folder: Path) -> None:
    """Write the result and the model, and print the scores and where both are."""
    from ..bench.results import write_result
    from ..bench.run import environment

    seconds = sum(row["seconds"] for row in fields["history"])
    result = spec.result(**fields, seconds=seconds, environment=environment())
    path = write_result(result, folder)
    left = leave_model(model, problem, spec, result, folder)
    print(visible(_scores(fields["dev"], fields["test"])))
    epochs = f"{fields['best_epoch']} of {len(fields['history'])}"
    print(f"\nbest epoch: {epochs}, {fields['steps']} steps, {seconds:.0f} s")
    print(f"checkpoint: {folder / 'checkpoint.pt'}\nresult:     {path}")
    print(f"model:      {visible(left)}\npage:       mtlweights report {folder}")


def _read_suite(args: argparse.Namespace) -> tuple[str, str | None, dict[str, Any]]:
    """Problem, strategy and settings of a suite that has one of each; what the command says comes first."""
    from ..bench import load_suite

    suite = load_suite(args.problem)
    if len(suite.problems) > 1 or len(suite.strategies) > 1:
        counts = f"{len(suite.problems)} problems and {len(suite.strategies)} strategies"
        raise ValueError(f"{args.problem} has {counts}: mtlweights train takes one of each.")
    if suite.bests:
        raise ValueError(f"{args.problem} names the best of a study: give mtlweights train that best.yaml.")
    problem, own = next(iter(suite.problems.items()))
    strategy = args.strategy or (None if args.task else suite.strategies[0])
    return problem, strategy, {**suite.settings, **own}


def _problem(args: argparse.Namespace) -> str:
    """The problem's spec, with the columns that were given as options of this command."""
    name, options = parse_spec(args.problem)
    for text in args.tags or ():
        task, equals, column = text.partition("=")
        if not (task and equals and column):
            raise ValueError(f"--tags takes TASK=COLUMN, as in ner=3 or pos=upos; found {text!r}.")
        if task.strip() in options:
            raise ValueError(f"--tags names the task {task.strip()!r} twice: give each task one column.")
        options |= parse_spec(f"columns:{text}")[1]
    if args.tokens:
        options |= parse_spec(f"columns:tokens={args.tokens}")[1]
    for key in ("classify", "regress", "ignore"):
        if columns := getattr(args, key):
            options[key] = columns[0] if len(columns) == 1 else columns
    return format_spec(name, options)


def _folder_name(problem: str, args: argparse.Namespace, seed: int) -> str:
    arm = f"single-{args.task}" if args.task else args.strategy
    parts = (re.sub(r"[^A-Za-z0-9.=]+", "-", part).strip("-.")[-80:] for part in (problem, arm, str(seed)))
    return "--".join(parts)


def _scores(dev: dict[str, dict[str, Any]], test: dict[str, dict[str, Any]]) -> str:
    """Every metric of every task, on the development and the test split, and the mean of those that all tasks
    have and that are in no unit."""
    lines = [("task", "metric", "dev", "test")]
    for task, metrics in test.items():
        for metric, value in metrics.items():
            lines.append((task, metric, f"{dev[task][metric]:.4f}", f"{value:.4f}"))
    shared = [m for m in next(iter(test.values())) if all(m in own for own in test.values())]
    for metric in shared if len(test) > 1 else ():
        if metric not in IN_UNITS:
            on_dev, on_test = (fmean(scores[task][metric] for task in test) for scores in (dev, test))
            lines.append(("mean", metric, f"{on_dev:.4f}", f"{on_test:.4f}"))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        f"{task:<{widths[0]}}  {metric:<{widths[1]}}  {on_dev:>{widths[2]}}  {on_test:>{widths[3]}}"
        for task, metric, on_dev, on_test in lines
    )
