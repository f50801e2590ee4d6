"""The results of several benches of one suite in one folder: those of `mtlweights bench --shard i/n`.

The same run in two of them counts once; one that came out differently is refused.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from .report import show

NAME = "merge"
HELP = "the results of several folders, of shards of one bench, in one"
RESUME = "the results there are whole: run the same command again"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("out", metavar="OUT", help="the folder that is to hold all of them")
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="results folders")


def run(args: argparse.Namespace) -> int:
    """Join the folders, print the tables, write the page."""
    from ..bench.merge import merge
    from ..bench.selection import labelled, read_choices

    results = merge(args.folders, args.out)
    print(f"{len(results)} results of {len(args.folders)} folders are in {args.out}\n")
    show(labelled(results, read_choices(args.out)), Path(args.out))
    return 0
