"""The completion script of a shell: commands, options, names of strategies and problems, files.

  mtlweights completion bash > ~/.local/share/bash-completion/completions/mtlweights
  mtlweights completion zsh > ~/.zfunc/_mtlweights

The script has the names of today: write it again after an update, or after installing a package with
strategies of its own.
"""

from __future__ import annotations

import argparse
import importlib.util

NAME = "completion"
HELP = "the completion script of bash, zsh or tcsh"
RESUME = "nothing was lost"
_FILES = ("RESULTS", "MODEL", "DIR", "FILE", "SUITE", "FOLDER", "PATH")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("shell", choices=("bash", "zsh", "tcsh"), help="which shell")


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    if importlib.util.find_spec("shtab") is None:
        raise ImportError('mtlweights completion needs shtab: pip install "mtlweights[completion]"')
    import shtab

    from .main import parser

    whole = parser()
    _name_values(whole)
    print(shtab.complete(whole, args.shell))
    return 0


def _name_values(parser: argparse.ArgumentParser) -> None:
    """Tell every argument, those of the commands too, what it may be completed to."""
    import shtab

    from ..problems import problems
    from ..strategies import names

    values = {"STRATEGY": names(), "PROBLEM": problems()}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _name_values(command)
        elif action.metavar in values:
            action.choices = values[str(action.metavar)]
        elif action.metavar in _FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
