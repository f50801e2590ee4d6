"""A user's delimited file: where its columns are, and its cells, a row at a time."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .column import MISSING_CELLS, Column, number
from .readers import not_utf8

DELIMITERS = ",;\t|"
MOST_FAULTS = 3  #: lines that are named one by one
_SAMPLE = 1000  # rows
_ANY_SIZE = 2**31 - 1  # of a cell; the csv module refuses more than 131,072 characters by default


class _BadRow(ValueError):
    """A row the csv module refuses."""


class Layout(NamedTuple):
    """Where a file's columns are."""

    delimiter: str
    header: list[str]  #: the cells of the first line
    names: list[str]  #: without a first one and last ones that are blank
    skipped: int  #: columns before the first name: 1 for an index without a name, as pandas writes it


def read_layout(path: Path) -> Layout:
    """Delimiter (comma, semicolon, tab or bar, whichever splits the first lines evenly) and column names.

    Raises:
        ValueError: no text, a blank name or one that stands twice, a first line that is no header.
    """
    samples = {delimiter: _sample(path, delimiter) for delimiter in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda d: _evenness(samples[d]))
    header, *rows = samples[delimiter] or next(([row] for _, row in iterate_rows(path, delimiter)), [[]])
    skipped = int(len(header) > 1 and not header[0])
    end = max((i for i, name in enumerate(header, 1) if name), default=0)
    names = header[skipped:end]
    if not names:
        raise ValueError(f"{path}: no rows found; expected a header line and a row for each example.")
    if any("\0" in name for name in names):
        raise ValueError(
            f"{path}: expected UTF-8 text, found NUL characters, as in utf-16: save it as UTF-8, for example "
            "with iconv -f utf-16le -t utf-8 OLD > NEW."
        )
    if data := _no_header(names, [row[skipped:] for row in rows if row != header]):
        raise ValueError(
            f"{path}: the first line looks like a row, not like names ({data}): add a header line."
        )
    faults = [f"column {i} has no name" for i, name in enumerate(names, skipped + 1) if not name]
    for name in dict.fromkeys(name for name in names if name and names.count(name) > 1):
        places = " and ".join(str(i) for i, other in enumerate(names, skipped + 1) if other == name)
        faults.append(f"columns {places} are both named {name!r}")
    if faults:
        raise ValueError(
            f"{path}: expected a header of different names, but {'; '.join(faults)}: rename them."
        )
    return Layout(delimiter, header, names, skipped)


def read_cells(path: Path, layout: Layout, ignore: Sequence[str]) -> tuple[dict[str, Column], int]:
    """The columns but those of ``ignore``, and the number of rows; lines without any cell are passed over.

    Raises:
        ValueError: a row of another length (blank cells at its end aside), one that repeats the header, a
            quote that is not closed: all that there are, the first `MOST_FAULTS` by their lines.
    """
    columns = {name: Column() for name in layout.names if name not in ignore}
    adds = [(columns[name].add, i) for i, name in enumerate(layout.names, layout.skipped) if name in columns]
    width, n, faults = layout.skipped + len(layout.names), 0, []
    for line, row in islice(iterate_rows(path, layout.delimiter), 1, None):
        if not any(row):
            continue
        if len(row) < width or any(row[width:]):
            faults.append(f"line {line}: expected {width} cells as in the header, found {len(row)}")
            continue
        if row == layout.header:
            faults.append(f"line {line}: the header once more, remove it")
        n += 1
        for add, i in adds:
            add(row[i], line)
    if faults:
        more = f"; and {len(faults) - MOST_FAULTS:,} more lines" if len(faults) > MOST_FAULTS else ""
        raise ValueError(f"{path}, {'; '.join(faults[:MOST_FAULTS])}{more}.")
    if not n:
        raise ValueError(f"{path}: no rows found; expected a header line and a row for each example.")
    return columns, n


def iterate_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each row; a line end within quotes is a blank, never nothing."""
    line = 1
    with _no_limit():
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:  # the csv module finds the line ends
                for row in (rows := _reader(file, delimiter)):
                    cells = [
                        re.sub(r"[\r\n]+", " ", cell) if "\n" in cell or "\r" in cell else cell
                        for cell in row
                    ]
                    yield line, [_unquoted(cell.strip(), delimiter) for cell in cells]
                    line = rows.line_num + 1
        except UnicodeDecodeError as error:
            raise not_utf8(path, error) from None
        except csv.Error as error:
            raise _BadRow(
                f"{path}, line {line}: a row that cannot be read ({error}): close each quote, and write "
                "a quote within quotes twice."
            ) from None


def _reader(file: Any, delimiter: str) -> Any:
    if delimiter == "\t":  # a quote in a sentence is a quote
        return csv.reader(file, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    return csv.reader(file, delimiter=delimiter, skipinitialspace=True, strict=True)


def _unquoted(cell: str, delimiter: str) -> str:
    if delimiter == "\t" and len(cell) > 1 and cell[0] == cell[-1] == '"':
        return cell[1:-1].replace('""', '"').strip()
    return cell


@contextmanager
def _no_limit() -> Iterator[None]:
    before = csv.field_size_limit(_ANY_SIZE)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _sample(path: Path, delimiter: str) -> list[list[str]]:
    """The first rows as this delimiter splits them, up to one that cannot be read."""
    found = []
    try:
        for _, row in islice(iterate_rows(path, delimiter), _SAMPLE):
            found.append(row)
    except _BadRow:
        pass
    return [row for row in found if any(row)]


def _evenness(rows: list[list[str]]) -> tuple[float, int]:
    """Share of rows as wide as the first, blank cells at the end aside; and that width."""
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, 0
    fits = sum(len(row) == width or (not any(row[width:]) and len(row) >= width - 1) for row in rows)
    return fits / len(rows), width


def _no_header(names: list[str], rows: list[list[str]]) -> str:
    """Cells of the first line that are data, if half of them are: a number, a missing cell, or a value that
    stands below as well. A year or a column's own number may well be a name."""
    found = []
    for i, name in enumerate(names):
        is_name = name in {str(i), str(i + 1)} or (name.isdecimal() and 1800 <= int(name) < 2200)
        below = any(row[i] == name for row in rows if len(row) > i)
        if not is_name and (below or number(name) is not None or (name and name.lower() in MISSING_CELLS)):
            found.append(name)
    return ", ".join(map(repr, found[:3])) if rows and 2 * len(found) >= len(names) else ""
