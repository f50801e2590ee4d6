"""One option per field of `train.Settings`, so that the two cannot differ."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from dataclasses import fields
from typing import Any, get_args, get_type_hints

from ..train.settings import CHOICES, Settings


def add_settings(parser: argparse.ArgumentParser, *, without: tuple[str, ...] = ()) -> None:
    """Add the options; one that is not given leaves the problem's own value."""
    group = parser.add_argument_group("settings", "over the problem's own (else the default in brackets)")
    said = dict(re.findall(r"^ +(\w+): (.+?)\.(?: |$)", Settings.__doc__ or "", re.MULTILINE))
    hints = get_type_hints(Settings)
    for field in fields(Settings):
        if field.name in without:
            continue
        default = "off" if field.default is None else field.default
        group.add_argument(
            "--" + field.name.replace("_", "-"),
            dest=f"settings.{field.name}",
            type=_reader(hints[field.name]),
            choices=CHOICES.get(field.name),
            metavar=None if field.name in CHOICES else field.name.upper(),
            default=argparse.SUPPRESS,
            help=f"{said[field.name]} [{default}]".replace("%", "%%"),
        )


def given_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that were given, by field name."""
    pairs = (key.partition("settings.") for key in vars(args))
    return {name: getattr(args, f"settings.{name}") for before, dot, name in pairs if dot and not before}


def _reader(hint: Any) -> Callable[[str], Any]:
    """What turns text into a value of type ``hint``; ``none`` and ``off`` are None where that is allowed."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]

    def read(text: str) -> Any:
        if len(kinds) < len(get_args(hint)) and text.lower() in ("none", "off"):
            return None
        return kinds[0](text)

    read.__name__ = kinds[0].__name__  # argparse names it in "invalid float value"
    return read
