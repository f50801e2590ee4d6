"""The comparison: every strategy and single-task training, on every problem, with every seed.

Without SUITE: the embedded suite, which downloads nothing and takes minutes. Run again with the same results
folder, it computes only what is missing, and what is of other data by now. Several at once, also on several
machines that share the folder, share the runs.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .report import show
from .settings import add_settings, given_settings

if TYPE_CHECKING:
    from ..bench import Suite

NAME = "bench"
HELP = "the comparison: a suite's runs, a table and a page"
RESUME = "run the same command again to continue with the runs that are missing"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "suite", nargs="?", metavar="SUITE", help="a suite's YAML file (default: the embedded suite)"
    )
    parser.add_argument(
        "--out", metavar="DIR", help="results folder (default: results/SUITE, or results/PROBLEM with -p)"
    )
    parser.add_argument(
        "-p",
        "--problem",
        action="append",
        metavar="PROBLEM",
        help="instead of the suite's problems; repeatable",
    )
    parser.add_argument(
        "-s",
        "--strategy",
        action="append",
        metavar="STRATEGY",
        help="instead of the suite's strategies, also FILE.py:Class, module:Class or a study's best.yaml; "
        "repeatable",
    )
    parser.add_argument(
        "--axis",
        metavar="AXIS",
        help="compare along it instead of strategies, all with that of -s (default: equal): sharing, "
        "training, regularisation, or an option or a setting with values, hidden=[32,64]",
    )
    parser.add_argument(
        "--seeds",
        nargs="+",
        type=int,
        metavar="N",
        help="one number: that many seeds, from 0; several: those",
    )
    parser.add_argument(
        "--budget",
        choices=("smoke", "default", "tuned8", "tuned16", "tuned54"),
        help="trials and fresh seeds of every arm, those that are always there included: smoke 1 trial and 2 "
        "seeds, default 1 and 10, tuned8 8 and 10, and so on",
    )
    parser.add_argument(
        "--recheck",
        type=int,
        default=0,
        metavar="N",
        help="compute N of the results of other code again; the same: all count as of this code",
    )
    parser.add_argument(
        "--shard",
        default="1/1",
        metavar="I/N",
        help="the I-th of N parts, for a job array; `merge` joins their folders",
    )
    parser.add_argument(
        "--backend",
        choices=("processes", "dask"),
        default="processes",
        help="what computes the runs: processes of this machine, or the workers of a Dask cluster",
    )
    parser.add_argument("--scheduler", metavar="ADDRESS", help="of --backend dask: tcp://HOST:8786")
    parser.add_argument("--dry-run", action="store_true", help="say what would run, and how long")
    parser.add_argument(
        "--until-resolved",
        action="store_true",
        help="add seeds only to arms that are not yet better, equal or worse; intervals hold whenever one "
        "looks",
    )
    parser.add_argument(
        "--max-seeds", type=int, default=40, metavar="N", help="of --until-resolved (default: 40)"
    )
    parser.add_argument(
        "--jobs", type=int, metavar="N", help="runs at a time (default: one per --threads cores)"
    )
    parser.add_argument(
        "--threads", type=int, default=1, metavar="N", help="torch threads of each run (default: 1)"
    )
    parser.add_argument(
        "--limit-minutes",
        type=float,
        default=24 * 60.0,
        metavar="N",
        help="a run that takes longer is ended, and failed (default: a day)",
    )
    add_settings(parser, without=("seed",))


def run(args: argparse.Namespace) -> int:
    """Run what is missing, print the table, write the page; 1 if a run failed."""
    from ..bench import run_suite, run_until_resolved
    from ..bench.costs import measure_costs
    from ..bench.foresee import foresee
    from ..bench.merge import read_shard
    from ..bench.schedule import jobs_of
    from ..bench.selection import labelled, read_choices

    suite = _suite(args)
    folder = Path(args.out or Path("results") / suite.name)
    how = {"jobs": args.jobs, "threads": args.threads, "limit_minutes": args.limit_minutes}
    how |= {"overrides": given_settings(args), "check_again": args.recheck, "shard": read_shard(args.shard)}
    if args.dry_run:
        jobs = jobs_of(args.jobs, args.threads)
        print(*foresee(suite, folder, how["overrides"], jobs, shard=how["shard"]), sep="\n")
        return 0
    if args.backend == "dask":
        how["pool"] = _on_dask(args)
    if args.until_resolved:
        results = run_until_resolved(suite, folder, max_seeds=args.max_seeds, **how)
    else:
        results = run_suite(suite, folder, **how)
    choices = read_choices(folder)
    measure_costs(choices, folder)
    show(labelled(results, choices), folder)
    failed = sum(result["status"] != "ok" for result in results)
    if failed:
        print(f"{failed} of {len(results)} runs failed; the same command tries them again", file=sys.stderr)
    return 1 if failed else 0


def _on_dask(args: argparse.Namespace) -> Any:
    from ..bench.cluster import run_on_dask

    if not args.scheduler:
        raise ValueError("--backend dask needs --scheduler ADDRESS, as in tcp://127.0.0.1:8786.")
    return partial(run_on_dask, scheduler=args.scheduler)


def _suite(args: argparse.Namespace) -> Suite:
    """The suite that is named, with what the options put in the place of its own."""
    from ..bench import load_suite
    from ..bench.axes import axis_of
    from ..bench.best import Best
    from ..bench.runspec import SINGLE, slug
    from ..bench.suite import MOST_SEEDS
    from ..bench.suitefile import read_arm

    suite = load_suite(args.suite)
    if args.problem:
        problems = {spec: suite.problems.get(spec, {}) for spec in args.problem}
        # other problems are another suite, with a folder of its own
        suite = replace(suite, problems=problems, name=slug("-".join(problems)))
    if args.axis:
        axis = axis_of(args.axis)
        name = slug(f"{suite.name}-{axis.name}")
        suite = replace(suite, axis=axis, name=name, strategies=("equal",), budget=suite.budget or "default")
    if args.strategy:
        # single-task training is always an arm, so naming it changes nothing
        given = [read_arm(spec) for spec in dict.fromkeys(args.strategy) if spec != SINGLE]
        bests = {arm.name: arm for arm in given if isinstance(arm, Best)}
        strategies = tuple(arm.name if isinstance(arm, Best) else arm for arm in given)
        suite = replace(suite, strategies=strategies, bests=bests)
    if budget := args.budget or suite.budget:
        suite = suite.under(budget)
    if args.seeds:
        first = args.seeds[0]
        if min(args.seeds) < 0 or args.seeds == [0] or (len(args.seeds) == 1 and first > MOST_SEEDS):
            raise ValueError(
                f"--seeds takes a number above 0, at most {MOST_SEEDS}, or several seeds of at least 0; "
                f"found {' '.join(map(str, args.seeds))}."
            )
        seeds = tuple(range(first)) if len(args.seeds) == 1 else tuple(dict.fromkeys(args.seeds))
        suite = replace(suite, seeds=seeds)
    return suite
