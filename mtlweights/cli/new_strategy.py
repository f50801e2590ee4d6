"""A folder for a strategy of your own: the class, its tests, and a package that gives it a name.

  mtlweights new-strategy inverse_norm
  mtlweights new-strategy my_rule --kind loss --out work/my_rule

What is written works as it stands, with a rule of one line to be replaced by yours. In the folder:
`mtlweights test my_rule.py`, `pytest`, and `pip install -e .`, after which `my_rule` is a known name;
`pip wheel --no-deps -w dist .` makes a wheel that gives it to others.
"""

from __future__ import annotations

import argparse
import keyword
import re
from importlib import resources
from pathlib import Path

from .. import __version__
from ..files.atomic import write
from ..strategies import names
from ..strategies.registry import ALIASES

NAME = "new-strategy"
HELP = "a folder for a strategy of your own, with tests that pass"
RESUME = "the files that were written stay; remove the folder to begin anew"
KINDS = ("loss", "gram", "jacobian")
_FILES = {"strategy.py.txt": "{name}.py", "test.py.txt": "test_{name}.py"}
_FILES |= {"pyproject.toml.txt": "pyproject.toml", "README.md.txt": "README.md"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("name", metavar="NAME", help="its name: small letters, digits and _")
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="gram",
        help="what it looks at: the losses, the inner products of the gradients, or the gradients [gram]",
    )
    parser.add_argument("--out", metavar="DIR", help="folder to write, not there yet (default: NAME)")


def run(args: argparse.Namespace) -> int:
    """Write the folder, and say what to do in it."""
    name = _checked(args.name)
    folder = Path(args.out or name)
    folder.mkdir(parents=True)  # FileExistsError: nothing is written over
    title = "".join(part.title() for part in name.split("_"))
    values = {"NAME": name, "CLASS": title, "VERSION": __version__}
    templates = resources.files(__package__) / "template"
    for source, target in _FILES.items():
        source = f"{args.kind}.py.txt" if source.startswith("strategy") else source
        text = (templates / source).read_text(encoding="utf-8")
        for key, value in values.items():
            text = text.replace(f"@{key}@", value)
        write(folder / target.format(name=name), text)
    print(f"{folder}: {name}.py, test_{name}.py, pyproject.toml, README.md\n")
    print(f"cd {folder}\nmtlweights test {name}.py\npytest\npip install -e .")
    return 0


def _checked(name: str) -> str:
    """The name, if a module, a class and an entry point can have it.

    Raises:
        ValueError: they cannot, or a strategy has it.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise ValueError(f"NAME takes small letters, digits and single _, as in my_rule; found {name!r}.")
    if name in {*names(), *ALIASES, "mtlweights", "test"}:
        raise ValueError(f"{name!r} is taken by a strategy or a module: choose another name.")
    return name
