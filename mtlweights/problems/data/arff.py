"""ARFF, the format of Weka and Mulan: attributes, then rows of cells."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from .readers import iterate_lines
from .records import Records

_ATTRIBUTE = re.compile(
    r"""@attribute\s+(?P<name>"[^"]*"|'(?:[^'\\]|\\.)*'|[^\s{]+)\s*(?P<type>\{.*\}|\S+)""", re.IGNORECASE
)
_TYPES = ("numeric", "real", "integer", "string", "{A,B,...}")


def read_arff(path: Path) -> Records:
    """The attributes of an ARFF file and its rows, whose cells are text; ``?`` is a missing one.

    Dense rows, and sparse ones (``{3 1.5, 7 yes}``), where a number that is not given is 0 and a category the
    first one. A line that starts with ``%`` is a comment.

    Raises:
        ValueError: no attribute, a type that is not read (dates, relations), no ``@data``, or no UTF-8.
    """
    names, defaults = [], []
    for number, line in iterate_lines(path):
        word = line.strip().lower()
        if word.startswith("@data"):
            break
        if word.startswith("@attribute"):
            name, default = _attribute(path, number, line.strip())
            names.append(name)
            defaults.append(default)
        elif word and not word.startswith(("%", "@relation")):
            raise ValueError(f"{path}, line {number}: expected @attribute or @data, found {line[:40]!r}.")
    else:
        raise ValueError(f"{path}: expected ARFF, attributes and an @data line, found no @data.")
    if not names:
        raise ValueError(f"{path}: expected an @attribute line for each column, found none.")
    return Records(names, lambda: _rows(path, defaults))


def _attribute(path: Path, number: int, line: str) -> tuple[str, str]:
    """Name of an attribute, and the cell that a sparse row leaves out."""
    match = _ATTRIBUTE.match(line)
    kind = match["type"].lower() if match else ""
    if match is None or not (kind in _TYPES or kind.startswith("{")):
        raise ValueError(
            f"{path}, line {number}: expected an attribute that is {', '.join(_TYPES)}, found {line[:60]!r}."
        )
    default = next(iter(_cells(match["type"][1:-1])), "?") if kind.startswith("{") else "0"
    return match["name"].strip("\"'").strip(), default


def _rows(path: Path, defaults: list[str]) -> Iterator[tuple[int, list[str]]]:
    inside = False
    for number, line in iterate_lines(path):
        text = line.strip()
        if not inside or not text or text.startswith("%"):
            inside = inside or text.lower().startswith("@data")
            continue
        yield number, _sparse(path, number, text, defaults) if text.startswith("{") else _cells(text)


def _sparse(path: Path, number: int, text: str, defaults: list[str]) -> list[str]:
    row = list(defaults)
    for pair in _cells(text.strip("{} \t")):
        index, _, cell = pair.partition(" ")
        if not (index.isdecimal() and int(index) < len(row)):
            raise ValueError(
                f"{path}, line {number}: expected an index below {len(row)} and a value, found {pair!r}."
            )
        row[int(index)] = cell.strip().strip("'\"")
    return row


def _cells(text: str) -> list[str]:
    """The cells of a line, split at commas outside quotes, of either kind."""
    quote = "'" if "'" in text and '"' not in text else '"'
    row = next(csv.reader([text], quotechar=quote, skipinitialspace=True), [])
    return [cell.strip() for cell in row]
