"""The tables and the page of a results folder, complete or not."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

NAME = "report"
HELP = "one HTML page, and the tables as text or Markdown"
RESUME = "nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("results", metavar="RESULTS", help="a folder that mtlweights bench or train wrote")
    parser.add_argument(
        "--markdown", action="store_true", help="print the tables as Markdown, and write no page"
    )


def run(args: argparse.Namespace) -> int:
    """Print the tables and write the page."""
    from ..bench import read_results

    results = read_results(args.results)
    if args.markdown:
        from ..bench.report import markdown_tables, read_study, without_trials

        print(markdown_tables(without_trials(results, read_study(args.results))), end="")
    else:
        show(results, Path(args.results))
    return 0


def show(results: list[Any], folder: Path) -> None:
    """Print the tables of the results, write their page into ``folder`` and say where it is."""
    from ..bench.report import read_study, text_tables, without_trials, write_page

    study = read_study(folder)
    results = without_trials(results, study)
    if results:
        print(text_tables(results))
    print(f"\npage: {write_page(results, folder / 'page.html', study=study)}")
