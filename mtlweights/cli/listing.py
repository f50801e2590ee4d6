"""Every strategy: what it costs in a step, what it needs from the loop, and its paper."""

from __future__ import annotations

import argparse
import inspect
import json

from ..strategies import LossStrategy, Strategy, get, names

NAME = "list"
HELP = "every strategy: family, cost in backward passes, paper"
RESUME = "nothing was lost"

#: where a strategy measures the task gradients, in words
_MEASURED_AT = {"shared": "", "last_shared": " at last layer", "features": " at features"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    rows = strategies()
    print(json.dumps(rows, indent=2) if args.json else _table(rows))
    return 0


def strategies() -> list[dict[str, str]]:
    """One row per strategy: name, family, backward passes per step, needs, summary, paper."""
    return [_row(name, get(name)) for name in names()]


def _row(name: str, strategy: type[Strategy]) -> dict[str, str]:
    single = issubclass(strategy, LossStrategy)
    return {
        "name": name,
        "family": strategy.family,
        "backward": "1" if single else "T" + _MEASURED_AT[strategy.measured_at],
        "needs": ", ".join(strategy.needs),
        "summary": (inspect.getdoc(strategy) or "").partition("\n")[0],
        "paper": strategy.paper,
    }


def _table(rows: list[dict[str, str]]) -> str:
    head = {"name": "strategy", "family": "family", "backward": "backward passes", "needs": "needs"}
    width = {key: max(len(row[key]) for row in (head, *rows)) for key in head}
    lines = ["  ".join(head[key].ljust(width[key]) for key in head).rstrip()]
    for row in rows:
        lines.append("  ".join((row[key] or "-").ljust(width[key]) for key in head).rstrip())
        lines += [" " * (width["name"] + 2) + row[key] for key in ("summary", "paper") if row[key]]
    lines += ["", "Backward passes are per step, for T tasks. needs: Balancer methods the loop must call."]
    return "\n".join(lines)
