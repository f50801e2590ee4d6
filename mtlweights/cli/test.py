"""The contract every strategy keeps, checked on yours: one line per check, and why it failed.

  mtlweights test my_strategy.py                    every strategy that the file defines
  mtlweights test my_strategy.py:MyStrategy:alpha=2
  mtlweights test my_package.my_module:MyStrategy
  mtlweights test pcgrad

The exit status is 1 if a check fails. Each check is also a function: see mtlweights.testing.
"""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from .timeleft import shown

if TYPE_CHECKING:
    from ..testing.subject import Subject

NAME = "test"
HELP = "check a strategy of your own"
RESUME = "nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "strategy", metavar="STRATEGY", help="FILE.py[:Class], module:Class or a name, then [:key=value,...]"
    )
    parser.add_argument(
        "--tasks",
        nargs="+",
        type=_number,
        metavar="T",
        help="numbers of tasks, for a strategy or hyperparameters not made for all (default: 1 2 3 10 40)",
    )


def run(args: argparse.Namespace) -> int:
    """Run all checks on every strategy meant; 1 if one fails."""
    from ..testing.subject import SIZES, find

    failed = [_report(subject) for subject in find(args.strategy, args.tasks or SIZES)]
    return int(any(failed))


def _report(subject: Subject) -> int:
    """Print a line per check; the number that failed."""
    from ..testing import CHECKS, findings

    start, done, failed = time.perf_counter(), 0, 0
    print(f"{subject.cls.__name__}, for {', '.join(map(str, subject.sizes))} tasks", flush=True)
    for name, message in shown(findings(subject), len(CHECKS), "check"):
        done, failed = done + 1, failed + bool(message)
        print(f"  FAIL  {name}: {message}" if message else f"  pass  {name}", flush=True)
    left = len(CHECKS) - done
    rest = f", {left} not run: they need the one that failed" if left else ""
    print(f"{done - failed} passed, {failed} failed{rest}; {time.perf_counter() - start:.1f} s")
    return failed


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"a number of tasks is at least 1, found {number}")
    return number
