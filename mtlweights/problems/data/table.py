"""Problems from a user's own table: ``csv:PATH``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ...specs import suggest
from ..problem import Problem
from ..task import Task
from .column import MOST_DIFFERENT, Column, Encoder
from .delimited import Layout, read_cells, read_layout
from .from_examples import table_problem
from .labels import examples, label_task, number_task, split_file

MOST_CATEGORIES = 100  #: of a text column among the inputs
SETTINGS = {"epochs": 40, "batch_size": 32, "lr": 2e-3}
UNITS = ("standard", "raw")

_COLUMNS = ("classify", "regress", "ignore")
_NAMELESS = re.compile(r"Unnamed: \d+")  # what pandas calls an index it wrote and read again
_CHUNK = 10_000  # rows


def table(name: str, path: str, options: Mapping[str, Any]) -> Problem:
    """Rows of a delimited file with a header line, split 70/15/15 by a fixed seed.

    ``classify`` and ``regress``: columns (one or a list) that are tasks; ``ignore``: columns left out, such
    as identifiers. The others are inputs: numbers as they are, text one-hot. A missing cell (empty, NA, NaN,
    null, none, ?) is the training mean in a column of numbers, a category of its own in one of text, and a
    missing label in a target. Columns with a single value in training, and an index that pandas wrote, are
    dropped. A regressed column's loss is in squared standard deviations of training, with ``units=raw`` in
    its own squared unit; its scores are always in its unit.

    Raises:
        ValueError: no target, unknown columns or options, a file that cannot be read, cells that fit no
            reading; all faults of the columns in one message.
        FileNotFoundError: nothing at ``path``.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    units = options.get("units", "standard")
    if units not in UNITS:
        raise ValueError(f"{path}: units should be standard or raw, found {units!r}.")
    layout = read_layout(file)
    chosen = _chosen(path, options, layout.names)
    columns, n = read_cells(file, layout, chosen["ignore"])
    index = [column for column in columns if _NAMELESS.fullmatch(column) and _counts_rows(columns[column])]
    taken = {*chosen["classify"], *chosen["regress"], *index}
    inputs = [column for column in columns if column not in taken]
    parts = {key: np.array(rows) for key, rows in split_file(range(n), path, "rows", 0.15).items()}
    _check(path, columns, inputs, chosen, layout.delimiter, parts["train"])
    tasks = _tasks(path, columns, parts, chosen, units == "standard")
    found = {key: columns[key].feature(key, parts["train"]) for key in inputs}
    features = {key: feature for key, feature in found.items() if feature}
    encoders = {key: columns[key].encoder(feature) for key, feature in features.items()}
    if not encoders:
        raise ValueError(f"{path}: no input column is left: expected one that is no target and not constant.")
    pairs = {key: _pairs(columns, [*encoders.values()], tasks, rows) for key, rows in parts.items()}
    mlp = {key: value for key, value in options.items() if key not in {*_COLUMNS, "units"}}
    out = [f"{key!r} (an index)" for key in index] + [
        f"{key!r} (one value)" for key in found if key not in encoders
    ]
    about = _about(n, layout, columns, list(encoders), out)
    notes = (about, *map(_about_task, tasks))
    return table_problem(name, tasks, examples(tasks, pairs), mlp, SETTINGS, notes, [*features.values()])


def _chosen(path: str, options: Mapping[str, Any], names: Sequence[str]) -> dict[str, list[str]]:
    """The columns of each option, all there and each in one alone."""
    given = {key: options.get(key) for key in _COLUMNS}
    lists = {key: value if isinstance(value, (list, tuple)) else [value] for key, value in given.items()}
    chosen = {key: [str(name) for name in value if name is not None] for key, value in lists.items()}
    flat = [name for value in chosen.values() for name in value]
    if unknown := [name for name in dict.fromkeys(flat) if name not in names]:
        found = ", ".join(map(repr, unknown))
        alone = (
            " It is the only one: put a comma, semicolon, tab or bar between cells."
            if len(names) == 1
            else ""
        )
        raise ValueError(f"{path}: there is no column {found}; {suggest(unknown[0], names)}{alone}")
    if twice := [name for name in dict.fromkeys(flat) if flat.count(name) > 1]:
        raise ValueError(
            f"{path}: expected different columns in classify, regress and ignore, found "
            f"{', '.join(map(repr, twice))} more than once."
        )
    if not chosen["classify"] and not chosen["regress"]:
        raise ValueError(
            f"{path}: expected a column in classify or regress, found none: give --classify COLUMN or "
            f"--regress COLUMN, in a spec classify=COLUMN or regress=COLUMN; known: {', '.join(names)}."
        )
    return chosen


def _check(
    path: str,
    columns: Mapping[str, Column],
    inputs: Sequence[str],
    chosen: Mapping[str, Sequence[str]],
    delimiter: str,
    train: np.ndarray,
) -> None:
    """Raise one ValueError with the faults of all columns."""
    faults = {}
    for name in [*inputs, *chosen["regress"]]:
        if fault := columns[name].fault(delimiter, name in chosen["regress"]):
            faults[name] = f"column {name!r}: {fault}"
    for name in chosen["classify"]:
        if not columns[name].has_all:
            faults[name] = (
                f"column {name!r} has more than {MOST_DIFFERENT:,} different values, too many classes"
            )
    for name in inputs:
        if name not in faults and not columns[name].numeric:
            different = len(columns[name].categories(train)) if columns[name].has_all else MOST_DIFFERENT
            if different > MOST_CATEGORIES:
                line, cell = columns[name].first["text"]
                faults[name] = (
                    f"text column {name!r} has {different:,} different values, more than {MOST_CATEGORIES} "
                    f"({cell[:40]!r} in line {line})"
                )
    if faults:
        left = [name for name in inputs if name in faults]
        spec = left[0] if len(left) == 1 else f"[{','.join(left)}]"
        ignore = f", or leave out with --ignore {' '.join(left)} (in a spec ignore={spec})" if left else ""
        raise ValueError(f"{path}: {'; '.join(faults.values())}: mend the cells or empty them{ignore}.")


def _tasks(
    path: str,
    columns: Mapping[str, Column],
    parts: Mapping[str, np.ndarray],
    chosen: Mapping[str, Sequence[str]],
    standardise: bool,
) -> list[Task]:
    tasks, faults = [], []
    for name in [*chosen["classify"], *chosen["regress"]]:
        try:
            if name in chosen["regress"]:
                values = _numbers(columns[name], parts["train"])
                tasks.append(number_task(name, values, ("rmse", "pearson"), standardise=standardise))
            else:
                labels = {key: _labels(columns[name], rows) for key, rows in parts.items()}
                tasks.append(label_task(name, "classification", labels))
        except ValueError as error:
            faults.append(str(error).rstrip("."))
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}.")
    return tasks


def _numbers(column: Column, rows: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in np.array(column.values)[rows].tolist()]


def _labels(column: Column, rows: np.ndarray) -> list[str | None]:
    return [None if code < 0 else column.names[code] for code in np.array(column.codes)[rows].tolist()]


def _pairs(
    columns: Mapping[str, Column], encoders: Sequence[Encoder], tasks: Sequence[Task], rows: np.ndarray
) -> Iterator[tuple[list[float], dict[str, Any]]]:
    """Inputs and targets of these rows, one by one; in chunks, so that little is held twice."""
    for start in range(0, len(rows), _CHUNK):
        chunk = rows[start : start + _CHUNK]
        inputs = zip(*(encode(chunk) for encode in encoders), strict=True)
        targets = [
            (_numbers if task.kind == "regression" else _labels)(columns[task.name], chunk) for task in tasks
        ]
        for cells, *values in zip(inputs, *targets, strict=True):
            yield [*chain(*cells)], {task.name: value for task, value in zip(tasks, values, strict=True)}


def _counts_rows(column: Column) -> bool:
    values = np.array(column.values)
    return bool(np.array_equal(values, np.arange(len(values)) + values[0]))


def _about(
    n: int,
    layout: Layout,
    columns: Mapping[str, Column],
    inputs: Sequence[str],
    out: Sequence[str],
) -> str:
    """What the file was taken for, in a line."""
    text = sum(not columns[name].numeric for name in inputs)
    comma = [repr(name) for name, column in columns.items() if column.numeric and column.comma]
    out = [*["the first column (no name, an index)"] * layout.skipped, *out]
    delimiter = {"\t": "tabs", ",": ""}.get(layout.delimiter, repr(layout.delimiter))
    said = [
        f"table: {n:,} rows" + (f" split at {delimiter}" if delimiter else ""),
        f"{len(inputs)} input column{'s' * (len(inputs) > 1)}" + (f", {text} of them text" if text else ""),
        f"decimal comma in {', '.join(comma)}" if comma else "",
        f"left out: {', '.join(out)}" if out else "",
    ]
    return "; ".join(filter(None, said))


def _about_task(task: Task) -> str:
    if task.kind == "classification":
        return f"{task.name}: accuracy, {len(task.labels)} classes"
    loss = "squared raw units" if task.unit == 1 else f"squared deviations of {task.unit:.4g}"
    return f"{task.name}: RMSE in its own unit, loss in {loss}"
