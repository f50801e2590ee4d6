"""One column of a table: its cells as numbers and as categories, and what it is taken for."""

from __future__ import annotations

import math
import re
from array import array
from collections import Counter
from collections.abc import Callable

import numpy as np

from ..models.features import Feature

Encoder = Callable[[np.ndarray], list[tuple[float, ...]]]  #: from row numbers to each row's inputs

MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  #: in lower case
MOST_DIFFERENT = 10_000  #: values that are told apart
LARGEST = 1e30  #: number that is taken; float32 ends at 3e38
MOSTLY, CATEGORIES = 0.5, 10  #: share of numbers in a column of numbers, and how many of them may be codes

_DISGUISED = re.compile(r"[^\w.]{0,3}\d[\d., ']*[^\w]{0,2}")  # 12 %, $1,200, 1.200,5
_COMMA = re.compile(r"[+-]?\d+,\d+")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")


class Column:
    """Cells, added one by one in 12 bytes each.

    Attributes:
        values: the number in each cell; NaN where there is none.
        codes: index of each cell in ``names``, -1 for a missing one, -2 beyond `MOST_DIFFERENT`.
        count: cells by look: "missing", "whole", "point", "comma", "thousands" (1,234: either), "huge",
            "text".
        first: line and cell of the first of each look.
    """

    def __init__(self) -> None:
        self.values, self.codes, self.names = array("d"), array("i"), list[str]()
        self.count: Counter[str] = Counter()
        self.first: dict[str, tuple[int, str]] = {}
        self._known: dict[str, tuple[int, float, str]] = {}

    def add(self, cell: str, line: int) -> None:
        """Take in the next cell, of this line."""
        code, value, look = self._known.get(cell) or self._take_in(cell, line)
        self.codes.append(code)
        self.values.append(value)
        self.count[look] += 1

    def _take_in(self, cell: str, line: int) -> tuple[int, float, str]:
        look, value = _look(cell)
        self.first.setdefault(look, (line, cell))
        if len(self._known) == MOST_DIFFERENT:
            return -1 if look == "missing" else -2, value, look
        code = -1
        if look != "missing":
            code = len(self.names)
            self.names.append(cell)
        self._known[cell] = code, value, look
        return self._known[cell]

    @property
    def has_all(self) -> bool:
        """Whether ``codes`` tells all values apart."""
        return len(self._known) < MOST_DIFFERENT

    @property
    def comma(self) -> bool:
        """Whether the numbers have a decimal comma."""
        return bool(self.count["comma"] + self.count["thousands"])

    @property
    def numeric(self) -> bool:
        """Whether every cell that is not missing is a number."""
        return not self.count["text"]

    def fault(self, delimiter: str, regressed: bool) -> str:
        """What is wrong with a column of numbers, naming the cell; "" for a good one and for one of text."""
        numbers = self.count.total() - self.count["text"] - self.count["missing"]
        known = numbers + self.count["text"]
        if self.count["text"]:
            if regressed or self._many(numbers / known, lambda name: number(name) is not None):
                other = (
                    f", the other {numbers:,} are"
                    if numbers
                    else ", nor is any other cell: text is for classify"
                )
                return self._cell("text", f"is no number{other}")
            disguised = self._many(1.0, lambda name: bool(_DISGUISED.fullmatch(name)))
            return self._cell("text", "looks like a number: write it as 1234.5") if disguised else ""
        if self.count["huge"]:
            return self._cell("huge", f"is beyond {LARGEST:g}: change the unit")
        if self.comma and self.count["point"]:
            commas = self.count["comma"] + self.count["thousands"]
            rarer = (
                "point" if self.count["point"] < commas else "comma" if self.count["comma"] else "thousands"
            )
            return self._cell(rarer, "mixes decimal commas and points")
        if self.count["thousands"] and not self.count["comma"] and delimiter == ",":
            return self._cell("thousands", "may be decimal or in thousands: write it with a point or without")
        return ""

    def _many(self, share: float, are: Callable[[str], bool]) -> bool:
        """Whether half of the cells and of the values, and more than a few, ``are`` something; few numbers
        are codes of categories."""
        values = sum(map(are, self.names)) if share >= MOSTLY else 0
        return values > CATEGORIES and values >= MOSTLY * len(self.names)

    def _cell(self, look: str, fault: str) -> str:
        line, cell = self.first[look]
        others = f" (and {self.count[look] - 1:,} more)" if self.count[look] > 1 else ""
        return f"{_short(cell)} in line {line}{others} {fault}"

    def categories(self, train: np.ndarray) -> list[int]:
        """Codes of the values that the rows ``train`` have, in the order of their names, missing first."""
        found = np.unique(np.array(self.codes)[train]).tolist()
        return sorted(found, key=lambda code: "" if code < 0 else self.names[code])

    def feature(self, name: str, train: np.ndarray) -> Feature | None:
        """What inputs the column makes, fitted on the rows ``train``; None if those are all equal.

        A number is one input, a missing one the mean; text an input for each category of ``train``.
        """
        if not self.numeric:
            codes = self.categories(train)
            categories = tuple(self.names[code] if code >= 0 else None for code in codes if code != -2)
            return Feature(name, categories=categories) if len(codes) > 1 else None
        values = np.array(self.values)[train]
        known = values[~np.isnan(values)]
        mean = float(known.mean()) if len(known) else 0.0
        return None if np.ptp(np.where(np.isnan(values), mean, values)) == 0 else Feature(name, mean)

    def encoder(self, feature: Feature) -> Encoder:
        """What makes that feature's inputs of some rows' cells."""
        codes, names = np.array(self.codes), dict(enumerate(self.names))
        if feature.categories:
            inputs = {code: feature.encode(name) for code, name in names.items()}
            inputs |= {-1: feature.encode(None), -2: (0.0,) * feature.width}
            return lambda rows: [inputs[code] for code in codes[rows].tolist()]
        values = np.where(np.isnan(self.values), feature.missing, self.values)
        return lambda rows: [(value,) for value in values[rows].tolist()]


def number(cell: str) -> float | None:
    """The finite number a cell holds, if it holds one; ``1_000`` is none."""
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) and "_" not in cell else None


def cell_number(cell: str) -> float | None:
    """The number a cell stands for as a column of numbers reads it, decimal comma included; None: missing.

    Raises:
        ValueError: it is neither a number nor missing.
    """
    look, value = _look(cell.strip())
    if look in ("text", "huge"):
        raise ValueError(f"expected a number, found {_short(cell)}")
    return None if look == "missing" else value


def _look(cell: str) -> tuple[str, float]:
    """How a cell looks, see `Column`, and its number."""
    if cell.lower() in MISSING_CELLS:
        return "missing", math.nan
    if (value := number(cell)) is not None:
        look = "whole" if cell.lstrip("+-").isdecimal() else "point"
        return look if abs(value) < LARGEST else "huge", value
    if _COMMA.fullmatch(cell):
        look = "thousands" if _THOUSANDS.fullmatch(cell) else "comma"
        return look, float(cell.replace(",", "."))
    return "text", math.nan


def _short(cell: str) -> str:
    return repr(cell if len(cell) <= 40 else f"{cell[:37]}...")
