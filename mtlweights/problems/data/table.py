"""Problems from a user's own table: ``csv:PATH``, ``arff:PATH``, ``jsonl:PATH``, ``parquet:PATH``."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...specs import suggest
from ..problem import Problem
from ..task import METRICS, Task
from .arff import read_arff
from .column import MOST_DIFFERENT, Column, number
from .delimited import Layout, read_cells, read_layout
from .from_examples import table_problem
from .labels import split_file
from .records import Records, read_jsonl, read_parquet, read_records
from .tabular import Targets, build_table

MOST_CATEGORIES = 100  #: of a text column among the inputs
MANY_CLASSES = 20  #: numbers as classes, beyond which they are asked about
SETTINGS = {"epochs": 40, "batch_size": 32, "lr": 2e-3}
UNITS = ("standard", "raw")
#: the formats that are no delimited text
FORMATS: dict[str, Callable[[Path], Records]] = {
    "arff": read_arff,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
}

_COLUMNS = ("classify", "regress", "ignore")
_SPOKEN = {"rmse": "RMSE in its own unit", "mae": "MAE in its own unit", "auroc": "AUROC"}
_NAMELESS = re.compile(r"Unnamed: \d+")  # what pandas calls an index it wrote and read again

_DATE = re.compile(r"\d{4}-\d\d?-\d\d?|\d\d?[./]\d\d?[./]\d{2,4}")


def table(name: str, path: str, options: Mapping[str, Any], kind: str = "csv") -> Problem:
    """Rows of a table, split 70/15/15 by a fixed seed: of a delimited file with a header line, or of one of
    `FORMATS`.

    ``classify`` and ``regress``: columns (one or a list) that are tasks; ``ignore``: columns left out, such
    as identifiers. The others are inputs: numbers as they are, text one-hot. A missing cell (empty, NA, NaN,
    null, none, ?) is the training mean in a column of numbers, a category of its own in one of text, and a
    missing label in a target. Columns with a single value in training, and an index that pandas wrote, are
    dropped. A regressed column's loss is in squared standard deviations of training, with ``units=raw`` in
    its own squared unit; its scores are always in its unit. ``metrics`` (one or a list) are those
    of the tasks whose kind they suit.

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
    metrics = _metrics(path, options)
    if kind == "csv":
        layout = read_layout(file)
        chosen = _chosen(path, options, layout.names)
        columns, n = read_cells(file, layout, chosen["ignore"])
    else:
        records = FORMATS[kind](file)
        layout = Layout("", records.names, records.names, 0)
        chosen = _chosen(path, options, records.names)
        columns, n = read_records(file, records, chosen["ignore"])
    index = [column for column in columns if _NAMELESS.fullmatch(column) and _counts_rows(columns[column])]
    taken = {*chosen["classify"], *chosen["regress"], *index}
    inputs = [column for column in columns if column not in taken]
    parts = {key: np.array(rows) for key, rows in split_file(range(n), path, "rows", 0.15).items()}
    _check(path, columns, inputs, chosen, layout.delimiter, parts["train"])
    targets = Targets(chosen["classify"], chosen["regress"], units == "standard", metrics)
    found = build_table(path, columns, inputs, parts, targets)
    mlp = {key: value for key, value in options.items() if key not in {*_COLUMNS, "units", "metrics"}}
    out = [*(f"{key!r} (an index)" for key in index), *(f"{key!r} (one value)" for key in found.constant)]
    about = _about(n, layout, columns, [feature.name for feature in found.features], out)
    notes = (about, *map(_about_task, found.tasks))
    return table_problem(name, found.tasks, found.splits, mlp, SETTINGS, notes, found.features)


def _metrics(path: str, options: Mapping[str, Any]) -> list[str]:
    """The metrics asked for, known ones of a table's tasks."""
    given = options.get("metrics", [])
    metrics = list(given) if isinstance(given, (list, tuple)) else [given]
    known = [*METRICS["classification"], *METRICS["regression"]]
    if unknown := [metric for metric in metrics if metric not in known]:
        raise ValueError(f"{path}: there is no metric {unknown[0]!r}; {suggest(str(unknown[0]), known)}")
    return metrics


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
                date = ": for a date give numbers, its year or its days" if _DATE.match(cell) else ""
                faults[name] = (
                    f"text column {name!r} has {different:,} different values, more than {MOST_CATEGORIES} "
                    f"({cell[:40]!r} in line {line}){date}"
                )
    if faults:
        left = [name for name in inputs if name in faults]
        spec = left[0] if len(left) == 1 else f"[{','.join(left)}]"
        ignore = f", or leave out with --ignore {' '.join(left)} (in a spec ignore={spec})" if left else ""
        raise ValueError(f"{path}: {'; '.join(faults.values())}: mend the cells or empty them{ignore}.")


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
    delimiter = {"\t": "tabs", ",": "", "": ""}.get(layout.delimiter, repr(layout.delimiter))
    said = [
        f"table: {n:,} rows" + (f" split at {delimiter}" if delimiter else ""),
        f"{len(inputs)} input column{'s' * (len(inputs) > 1)}" + (f", {text} of them text" if text else ""),
        f"decimal comma in {', '.join(comma)}" if comma else "",
        f"left out: {', '.join(out)}" if out else "",
    ]
    return "; ".join(filter(None, said))


def _doubt(task: Task) -> str:
    """What speaks against these classes being meant: one written in two ways, or numbers throughout."""
    seen: dict[str, str] = {}
    for label in task.labels:
        if seen.setdefault(label.casefold(), label) != label:
            return f", {seen[label.casefold()]!r} and {label!r} being two: write a class in one way"
    if len(task.labels) > MANY_CLASSES and all(number(label) is not None for label in task.labels):
        return f", all of them numbers: was --regress {task.name} meant?"
    return ""


def _about_task(task: Task) -> str:
    first = _SPOKEN.get(task.metrics[0], task.metrics[0])
    if task.kind == "classification":
        return f"{task.name}: {first}, {len(task.labels)} classes{_doubt(task)}"
    loss = "squared raw units" if task.unit == 1 else f"squared deviations of {task.unit:.4g}"
    return f"{task.name}: {first}, loss in {loss}"
