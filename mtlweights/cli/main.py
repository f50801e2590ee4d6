"""The parser, and what an error looks like."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from .. import __version__
from ..files.escapes import visible
from . import (
    advise,
    bench,
    cite,
    completion,
    compress,
    doctor,
    export,
    launched,
    listing,
    merge,
    new_strategy,
    predict,
    problems,
    report,
    serve,
    show,
    test,
    train,
    tune,
)

COMMANDS = (
    listing,
    show,
    cite,
    problems,
    advise,
    train,
    predict,
    export,
    compress,
    serve,
    bench,
    tune,
    report,
    merge,
    test,
    new_strategy,
    doctor,
    completion,
)

#: what a user can mend; anything else is a bug and keeps its traceback
USER_ERRORS = (ValueError, OSError, ImportError, FloatingPointError, MemoryError, torch.OutOfMemoryError)
_NO_MEMORY = "can't allocate memory"  # torch's word for it on the CPU, in a plain RuntimeError


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        launched.say(f"mtlweights: error: {visible(message)} (see {self.prog} --help)")
        self.exit(2)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, 1 for failures, 2 for an error, 130 if interrupted.

    Args:
        argv: the arguments after the program's name; None reads them from ``sys.argv``.
    """
    launched.silence()
    args = parser().parse_args(argv)
    try:
        launched.check_command(args.command)
        return int(args.run(args))
    except KeyboardInterrupt:
        if argv is None:  # the process ends here: a second Ctrl-C would only show where it was
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        launched.say(f"\nmtlweights: interrupted; {args.resume}")
        return 130
    except BrokenPipeError:
        # The reader (head, less) has left: nothing to say, and nothing may be flushed at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (*USER_ERRORS, RuntimeError) as error:
        if args.debug or not (isinstance(error, USER_ERRORS) or _NO_MEMORY in str(error)):
            raise
        launched.say(f"mtlweights: error: {visible(_line(error))}")
        return 2


def parser() -> argparse.ArgumentParser:
    """The parser of every command; the parsed arguments have ``run``, ``resume`` and ``debug``."""
    whole = _Parser(
        prog="mtlweights",
        allow_abbrev=False,
        description="Train multi-task models under loss-balancing strategies, and compare them.",
    )
    whole.add_argument("--version", action="version", version=f"mtlweights {__version__}")
    common = _Parser(add_help=False, allow_abbrev=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for module in COMMANDS:
        command = commands.add_parser(
            module.NAME,
            parents=[common],
            help=module.HELP,
            description=module.__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        command.set_defaults(run=module.run, resume=module.RESUME)
        module.add_arguments(command)
    return whole


def _line(error: BaseException) -> str:
    """An error's message on one line, whatever it was made of."""
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or _NO_MEMORY in str(error):
        return "there is not enough memory: make the model or the batches smaller"
    return " ".join(str(error).split()) or type(error).__name__
