"""The tables and the page of a results folder, complete or not."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

NAME = "report"
HELP = "one HTML page, and the tables as text or Markdown, or every verdict as JSON"
RESUME = "nothing was lost"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("results", metavar="RESULTS", help="a folder that mtlweights bench or train wrote")
    form = parser.add_mutually_exclusive_group()
    form.add_argument(
        "--markdown", action="store_true", help="print the tables as Markdown, and write no page"
    )
    form.add_argument("--json", action="store_true", help="print every verdict as JSON, and write no page")


def run(args: argparse.Namespace) -> int:
    """Print the tables and write the page."""
    from ..bench import read_protocol, read_results
    from ..bench.report import read_study, without_trials
    from ..bench.selection import labelled, read_choices

    results = without_trials(read_results(args.results), read_study(args.results))
    choices = read_choices(args.results)
    results = labelled(results, choices)
    protocol = read_protocol(args.results)
    if args.json:
        from ..bench.report import verdicts

        print(json.dumps(verdicts(results, protocol), indent=1, allow_nan=False))
    elif args.markdown:
        from ..bench.report import markdown_tables

        print(markdown_tables(results, protocol, choices), end="")
    else:
        show(results, Path(args.results))
    return 0


def show(results: list[Any], folder: Path) -> None:
    """Print the tables of the results, write their page into ``folder`` and say where it is."""
    from ..bench import read_protocol
    from ..bench.costs import read_costs
    from ..bench.report import read_study, text_tables, write_page
    from ..bench.selection import read_choices

    protocol, study, choices = read_protocol(folder), read_study(folder), read_choices(folder)
    if results:
        print(text_tables(results, protocol, choices))
    more: dict[str, Any] = {
        "protocol": protocol,
        "study": study,
        "choices": choices,
        "costs": read_costs(folder),
    }
    page = write_page(results, folder / "page.html", **more)
    print(f"\npage: {page}")
