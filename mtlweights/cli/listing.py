"""Every strategy in a line: family, backward passes in a step, what it needs from the loop, what it does.

  mtlweights list --cost 1                    one backward pass in a step
  mtlweights list --family gradient           the families whose name starts so

mtlweights show NAME has all of one: its rule, paper, hyperparameters, properties.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence

from ..strategies.catalogue import strategies

NAME = "list"
HELP = "every strategy: family, cost in backward passes, what it does"
RESUME = "nothing was lost"
_HEAD = {"name": "strategy", "family": "family", "backward": "backward passes", "needs": "needs"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--family", metavar="NAME", help="those of this family, or of all that start so")
    parser.add_argument(
        "--cost", metavar="PASSES", help="those of so many backward passes: 1, T, 'T at last layer' ..."
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        rows = strategies()
    for warning in told:
        print(f"mtlweights: warning: {warning.message}", file=sys.stderr)
    rows = _only(rows, "family", "--family", args.family)
    rows = _only(rows, "backward", "--cost", args.cost)
    print(json.dumps(rows, indent=2) if args.json else _table(rows))
    return 0


def _only(rows: list[dict[str, str]], key: str, option: str, wanted: str | None) -> list[dict[str, str]]:
    """The rows whose value starts with what is wanted.

    Raises:
        ValueError: there is none.
    """
    if wanted is None:
        return rows
    values = list(dict.fromkeys(row[key] for row in rows))
    found = [row for row in rows if row[key].startswith(wanted)]
    if not wanted or not found:
        raise ValueError(f"{option} takes the start of one of {', '.join(values)}; found {wanted!r}.")
    return found


def _table(rows: list[dict[str, str]]) -> str:
    """A line each; on a terminal none is longer than it is wide."""
    table = [{key: row[key] for key in _HEAD} | {"summary": row["summary"]} for row in rows]
    lines = columns([{**_HEAD, "summary": "what it does"}, *table])
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    return "\n".join(lines)


def columns(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Rows of the same keys as lines, each key's cells one below another; "-" for an empty one."""
    width = {key: max(len(row[key]) for row in rows) for key in rows[0]}
    return ["  ".join((row[key] or "-").ljust(width[key]) for key in width).rstrip() for row in rows]
