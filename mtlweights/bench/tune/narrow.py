"""What a user says of a search space: a YAML file, and values that stay fixed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ...specs import parse_spec
from ...strategies.space import read_range
from ..yamlfile import Located, read_yaml

_RANGE = {"from", "to", "log", "ratios"}
_FORMS = (
    "expected {from: LOW, to: HIGH} with numbers, LOW below HIGH, and above 0 with log: true; {ratios: MOST} "
    "with MOST above 1; or a list of choices [A, B]"
)


def read_narrowed(path: str | Path) -> dict[str, Any]:
    """A file like ``{lr: {from: 1e-4, to: 1e-2, log: true}, clip: 1.0, cagrad: {c: [0.2, 0.4]}}``.

    A list is a choice, a mapping with ``from`` and ``to`` (or ``ratios``) a range, anything else one value; a
    mapping of another kind holds the hyperparameters of a strategy.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or a range that is none; the message holds the line.
    """
    found: dict[str, Any] = {}
    for key, value in read_yaml(path).mapping("a search space").items():
        inner = value.value if isinstance(value.value, dict) else {}
        if inner and not _RANGE & {name.value for name in inner}:
            found |= {f"{key.value}.{name.value}": _literal(name, item) for name, item in inner.items()}
        else:
            found[str(key.value)] = _literal(key, value)
    return found


def read_fixed(texts: Iterable[str]) -> dict[str, Any]:
    """``["lr=1e-3", "cagrad.c=0.4"]`` as name -> value.

    Raises:
        ValueError: one is not ``NAME=VALUE``, or holds a list.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise ValueError(f"--fix takes NAME=VALUE, as in lr=1e-3 or cagrad.c=0.4; found {text!r}.")
        found[name.strip()] = parse_spec(f"fix:value={value}")[1]["value"]
        if isinstance(found[name.strip()], list):
            raise ValueError(
                f"--fix takes one value, found {text!r}: choices go into a file for --space, and a list "
                "that a strategy takes into its spec."
            )
    return found


def is_range(value: Any) -> bool:
    """Whether this is a range or a choice, not one value."""
    return isinstance(value, (tuple, list))


def _literal(key: Located, value: Located) -> Any:
    """The range or value as `mtlweights.strategies.space` writes it."""
    plain = value.plain()
    if isinstance(plain, dict):
        if strange := set(plain) - _RANGE:
            raise value.error(f"{key.value}: a range has from, to, log or ratios; found {min(strange)!r}.")
        ends = ("ratios", plain["ratios"]) if "ratios" in plain else (plain.get("from"), plain.get("to"))
        if not isinstance(plain.get("log", False), bool):
            raise value.error(f"{key.value}: log is true or false, found {plain['log']!r}.")
        plain = (*ends, "log") if plain.get("log") else ends
    if is_range(plain):
        try:
            read_range(str(key.value), plain)
        except ValueError:
            raise value.error(f"{key.value}: {_FORMS}; found {value.shown()}.") from None
    return plain
