"""Every strategy: what it costs in a step, what it keeps, what it needs from the loop, and its paper."""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Mapping, Sequence

from ..strategies.catalogue import strategies

NAME = "list"
HELP = "every strategy: family, cost in backward passes, state, paper"
RESUME = "nothing was lost"


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


def _table(rows: list[dict[str, str]]) -> str:
    head = {"name": "strategy", "family": "family", "backward": "backward passes", "state": "state"}
    head["needs"] = "needs"
    width = max(len(row["name"]) for row in (head, *rows))
    first, *rest = columns([head, *({key: row[key] for key in head} for row in rows)])
    lines = [first]
    for row, line in zip(rows, rest, strict=True):
        lines.append(line)
        lines += [" " * (width + 2) + row[key] for key in ("summary", "paper") if row[key]]
    lines += ["", "Backward passes are per step, for T tasks and P shared parameters."]
    lines += ["state: what a checkpoint of it holds. needs: Balancer methods the loop must call."]
    return "\n".join(lines)


def columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of the same keys as lines, each key's cells one below another; "-" for an empty one."""
    width = {key: max(len(row[key]) for row in rows) for key in rows[0]}
    return ["  ".join((row[key] or "-").ljust(width[key]) for key in width).rstrip() for row in rows]
