"""The papers of strategies as BibTeX, and how to cite this library.

mtlweights cite pcgrad uw >> references.bib
mtlweights cite                                     the library itself
"""

from __future__ import annotations

import argparse

from .. import __version__
from ..files.escapes import visible
from ..strategies import get
from ..strategies.citation import bibtex

NAME = "cite"
HELP = "the papers of strategies as BibTeX"
RESUME = "nothing was lost"
_OWN = f"""@software{{mtlweights,
  title = {{{{mtlweights: weighting the losses of multi-task PyTorch models}}}},
  author = {{{{the mtlweights authors}}}},
  version = {{{__version__}}},
}}"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("strategy", nargs="*", metavar="STRATEGY", help="names; none: the library itself")


def run(args: argparse.Namespace) -> int:
    """Print an entry for each, a paper that several share once."""
    entries: dict[str, list[str]] = {}
    for name in args.strategy:
        comment, _, entry = bibtex(name, get(name)).partition("\n")
        key = entry.partition("{")[2].partition(",")[0]
        entries.setdefault(key, [entry]).insert(0, comment)
    print(visible("\n\n".join("\n".join(parts) for parts in entries.values())) if entries else _OWN)
    return 0
