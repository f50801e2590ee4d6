"""What a user gives for one example, checked and read as the model's inputs were in training."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from ..problems.data.column import LARGEST, MISSING_CELLS, cell_number
from ..problems.models.features import Feature
from ..specs import suggest

WORD = re.compile(r"\w+|[^\w\s]")  #: words of a text that nobody has split
Kind = Literal["text", "pair", "table"]
FORMS = {
    "text": "a text or a list of words",
    "pair": "a pair of texts or of lists of words",
    "table": "a mapping from columns to cells",
}


class Reading(NamedTuple):
    """One example, read."""

    input: Any  #: what the model's inputs take: words, a pair of lists of words, or numbers
    text: str | None = None  #: the text the words are of; None where words were given
    places: tuple[tuple[int, int], ...] = ()  #: start and end of each word in it


def read(kind: Kind, given: Any, features: Sequence[Feature] = ()) -> Reading:
    """Read one example.

    Args:
        given: for "text" a text or a list of words; for "pair" two of them; for "table" column -> cell (a
            number, or text as in a file; a missing one may be left out or None), or the numbers in order.

    Raises:
        ValueError: it is of another form, lacks a column, or has a cell that cannot be read.
    """
    if kind == "table":
        return Reading(_row(given, features))
    if kind == "pair":
        if not isinstance(given, (list, tuple)) or len(given) != 2:
            raise ValueError(f"expected {FORMS['pair']}, found {_shown(given)}")
        return Reading(tuple(_words(side).input for side in given))
    return _words(given)


def _words(given: Any) -> Reading:
    if isinstance(given, str):
        _whole(given)
        found = [*WORD.finditer(given)]
        return Reading([match[0] for match in found], given, tuple(match.span() for match in found))
    if not isinstance(given, (list, tuple)) or not all(isinstance(word, str) for word in given):
        raise ValueError(f"expected {FORMS['text']}, found {_shown(given)}")
    for word in given:
        _whole(word)
    return Reading([*given])


def _whole(text: str) -> None:
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("expected text that UTF-8 can hold, found half of a surrogate pair")


def _row(given: Any, features: Sequence[Feature]) -> list[float]:
    if isinstance(given, Mapping):
        if not features:
            raise ValueError("expected a list of numbers: the names of this model's columns are not known")
        lacks = [f.name for f in features if f.name not in given and not _may_lack(f)]
        if lacks:
            raise ValueError(f"there is no column {lacks[0]!r}; {suggest(lacks[0], map(str, given))}")
        cells = [given.get(feature.name) for feature in features]
    elif isinstance(given, (list, tuple)):
        cells = [*given]
    else:
        raise ValueError(f"expected {FORMS['table']}, found {_shown(given)}")
    if not features:
        return [_number(cell, "a row") for cell in cells]
    if len(cells) != len(features):
        raise ValueError(f"expected {len(features)} cells, found {len(cells)}")
    return [value for cell, feature in zip(cells, features, strict=True) for value in _cell(cell, feature)]


def _may_lack(feature: Feature) -> bool:
    return None in feature.categories


def _cell(cell: Any, feature: Feature) -> tuple[float, ...]:
    if cell is not None and not isinstance(cell, (str, int, float)):
        raise ValueError(f"column {feature.name!r}: expected a number or a text, found {_shown(cell)}")
    if isinstance(cell, str) and cell.strip().lower() in MISSING_CELLS:
        cell = None
    if feature.categories:
        return feature.encode(None if cell is None else str(cell).strip())
    return feature.encode(None if cell is None else _number(cell, f"column {feature.name!r}"))


def _number(cell: Any, where: str) -> float:
    try:
        value = cell_number(cell) if isinstance(cell, str) else float(cell)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {error}") from None
    if value is None or not math.isfinite(value) or abs(value) > LARGEST:
        raise ValueError(f"{where}: expected a number up to {LARGEST:g}, found {_shown(cell)}")
    return value


def _shown(given: Any) -> str:
    return type(given).__name__ if not isinstance(given, (str, int, float)) else repr(given)[:40]
