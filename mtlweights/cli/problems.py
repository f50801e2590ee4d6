"""Every built-in problem: its tasks with the metric an epoch is selected on, its model, its data.

Your own data are problems too: conll:PATH (sentences), and csv:, arff:, jsonl: and parquet:PATH (tables).
"""

from __future__ import annotations

import argparse
import json

from .listing import columns

NAME = "problems"
HELP = "every built-in problem: tasks, metrics, model, data"
RESUME = "nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from ..problems.catalogue import catalogue

    rows = catalogue()
    head = {"name": "problem", "tasks": "tasks (metric)", "model": "model", "data": "data"}
    print(json.dumps(rows, indent=2) if args.json else "\n".join(columns([head, *rows])))
    return 0
