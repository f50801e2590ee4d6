"""Every strategy: what it costs in a step, what it keeps, what it needs from the loop, and its paper."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
import warnings

from ..strategies import GramStrategy, JacobianStrategy, LossStrategy, Strategy, get, names
from ..strategies.loading import one_line
from ..strategies.registry import STRATEGIES

NAME = "list"
HELP = "every strategy: family, cost in backward passes, state, paper"
RESUME = "nothing was lost"

#: where a strategy measures the task gradients, in words
_MEASURED_AT = {"shared": "", "all": "", "last_shared": " at last layer", "features": " at features"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rows = strategies()
    for warning in told:
        print(f"mtlweights: warning: {warning.message}", file=sys.stderr)
    print(json.dumps(rows, indent=2) if args.json else _table(rows))
    return 0


def strategies() -> list[dict[str, str]]:
    """One row per strategy: name, family, backward passes per step, state, needs, summary, paper.

    Warns of those that other packages register and that cannot be used, and leaves them out.
    """
    rows = []
    for name in names():
        try:
            rows.append(_row(name, get(name)))
        except (Exception, SystemExit) as error:  # whatever a package does that is none of ours
            if name in STRATEGIES:
                raise
            warnings.warn(f"Strategy {name!r} is left out: {one_line(error)}.", stacklevel=2)
    return rows


def _row(name: str, strategy: type[Strategy]) -> dict[str, str]:
    return {
        "name": name,
        "family": strategy.family,
        "backward": _passes(strategy),
        "state": _state(strategy),
        "needs": ", ".join(strategy.needs),
        "summary": (inspect.getdoc(strategy) or "").partition("\n")[0],
        "paper": strategy.paper,
    }


def _passes(strategy: type[Strategy]) -> str:
    if issubclass(strategy, LossStrategy):
        return "1"
    batches = strategy.batches if issubclass(strategy, GramStrategy) else 1
    passes = "T" + _MEASURED_AT[strategy.measured_at] if batches == 1 else f"T on each of {batches} batches"
    return passes + (" + validation" if strategy.validation_rows else "")


def _state(strategy: type[Strategy]) -> str:
    """What a checkpoint holds, by size."""
    if issubclass(strategy, JacobianStrategy) and (strategy.row_state or strategy.tensor_state):
        return "T x P" if strategy.row_state else "T x tensors"
    made = strategy(3)
    sizes = [x.dim() for name, x in made.state_dict().items() if name != "step"]
    kind = "T x T" if max(sizes, default=0) > 1 else "T" if sizes else ""
    return kind + (", learned" if any(True for _ in made.parameters()) else "")


def _table(rows: list[dict[str, str]]) -> str:
    head = {"name": "strategy", "family": "family", "backward": "backward passes", "state": "state"}
    head["needs"] = "needs"
    width = {key: max(len(row[key]) for row in (head, *rows)) for key in head}
    lines = ["  ".join(head[key].ljust(width[key]) for key in head).rstrip()]
    for row in rows:
        lines.append("  ".join((row[key] or "-").ljust(width[key]) for key in head).rstrip())
        lines += [" " * (width["name"] + 2) + row[key] for key in ("summary", "paper") if row[key]]
    lines += ["", "Backward passes are per step, for T tasks and P shared parameters."]
    lines += ["state: what a checkpoint of it holds. needs: Balancer methods the loop must call."]
    return "\n".join(lines)
