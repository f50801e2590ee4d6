"""All of one strategy: what it costs and needs, hyperparameters and what is searched, its rule, its paper.

mtlweights show pcgrad
mtlweights show my_strategy.py:MyStrategy
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..files.escapes import visible
from ..strategies.catalogue import describe

NAME = "show"
HELP = "one strategy: rule, paper, cost, hyperparameters, properties"
RESUME = "nothing was lost"
_LABELS = {
    "aliases": "also",
    "family": "family",
    "backward": "passes",
    "state": "state",
    "needs": "needs",
    "heads": "heads",
    "properties": "properties",
    "paper": "paper",
    "class": "class",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("strategy", metavar="STRATEGY", help="a name, FILE.py:Class or module:Class")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    found = describe(args.strategy)
    print(json.dumps(found, indent=2, default=str) if args.json else visible(_text(found)))
    return 0


def _text(found: dict[str, Any]) -> str:
    lines = [f"{found['name']}: {found['summary']}", ""]
    for key, label in _LABELS.items():
        value = ", ".join(found[key]) if isinstance(found[key], list) else found[key]
        if value or key in ("state", "needs", "properties"):
            lines.append(f"{label:<11} {value or '-'}")
    degree = found["scale_degree"]
    lines.append(
        f"{'scale':<11} {'-' if degree is None else f'losses times c: the update times c^{degree:g}'}"
    )
    lines += ["", "hyperparameters", *(_line(name, of) for name, of in found["hyperparameters"].items())]
    if not found["hyperparameters"]:
        lines.append("  none")
    return "\n".join([*lines, "", found["text"].replace("``", "")])


def _line(name: str, of: dict[str, Any]) -> str:
    return f"  {name} = {of['default']!r}, {_range(of['space'])}"


def _range(space: Any) -> str:
    """A range of `strategies.space` in words."""
    if space is None:
        return "not searched"
    if isinstance(space, list):
        return f"searched among {', '.join(map(str, space))}"
    if space[0] == "ratios":
        return f"searched: weights whose ratios are at most {space[1]:g}"
    return f"searched from {space[0]:g} to {space[1]:g}{', by decades' if space[2:] else ''}"
