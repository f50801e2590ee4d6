"""A user's table that is no delimited text: its column names, and its rows as cells of text."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ...files.escapes import message_of
from .column import Column
from .readers import iterate_lines


class Records(NamedTuple):
    """A table that is read a row at a time.

    Attributes:
        names: of the columns.
        rows: gives each row's number, as a user counts, and its cells; a missing one is "" or ``?``.
    """

    names: list[str]
    rows: Callable[[], Iterator[tuple[int, list[str]]]]


def read_records(path: Path, records: Records, ignore: Sequence[str] = ()) -> tuple[dict[str, Column], int]:
    """The columns but those of ``ignore``, and the number of rows.

    Raises:
        ValueError: column names that are blank or stand twice, a row of another length, or none.
    """
    names = records.names
    if not all(names) or len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        found = f"{', '.join(map(repr, twice))} twice" if twice else "a blank one"
        raise ValueError(f"{path}: expected columns of different names, found {found}: rename them.")
    columns = {name: Column() for name in names if name not in ignore}
    adds = [(columns[name].add, i) for i, name in enumerate(names) if name in columns]
    n = 0
    for number, row in records.rows():
        if len(row) != len(names):
            raise ValueError(f"{path}, line {number}: expected {len(names)} cells, found {len(row)}.")
        n += 1
        for add, i in adds:
            add(row[i], number)
    if not n:
        raise ValueError(f"{path}: no rows found; expected one for each example.")
    return columns, n


def read_jsonl(path: Path) -> Records:
    """A file with a JSON object a line; its columns are all keys, in the order met. A key that a line does
    not have, or null, is a missing cell.

    Raises:
        ValueError: a line that is no object of numbers, texts, true, false and null; or no UTF-8.
    """
    names: dict[str, None] = {}
    for _, record in _objects(path):
        names.update(dict.fromkeys(record))

    def rows() -> Iterator[tuple[int, list[str]]]:
        for number, record in _objects(path):
            yield number, [_cell(path, number, name, record.get(name)) for name in names]

    return Records(list(names), rows)


def _objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in iterate_lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}: expected JSON, found {line[:40]!r} ({error})."
            ) from None
        if not isinstance(record, dict):
            raise ValueError(f"{path}, line {number}: expected an object a line, found {line[:40]!r}.")
        yield number, record


def read_parquet(path: Path) -> Records:
    """A Parquet file.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: no Parquet file, or a column that is not of numbers, texts or truth values.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise ImportError("a Parquet file needs pyarrow: pip install 'mtlweights[parquet]'") from error

    @contextmanager
    def readable() -> Iterator[None]:
        try:
            yield
        except ArrowException as error:
            reason = message_of(error)[:100]
            raise ValueError(
                f"{path}: expected a Parquet file, found none that is whole ({reason})."
            ) from None

    with readable():
        file = parquet.ParquetFile(path)
        names = list(file.schema_arrow.names)

    def rows() -> Iterator[tuple[int, list[str]]]:
        number = 0
        with readable():
            for batch in file.iter_batches():
                columns = [column.to_pylist() for column in batch.columns]
                for values in zip(*columns, strict=True):
                    number += 1
                    pairs = zip(names, values, strict=True)
                    yield number, [_cell(path, number, name, value) for name, value in pairs]

    return Records(names, rows)


def _cell(path: Path, number: int, name: str, value: Any) -> str:
    """A value as the text that a delimited file would hold."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float, str)):
        return " ".join(value.split()) if isinstance(value, str) else repr(value)
    raise ValueError(
        f"{path}, line {number}, column {name!r}: expected a number, a text or a truth value, found "
        f"{type(value).__name__}: leave the column out with --ignore, or write it as text."
    )
