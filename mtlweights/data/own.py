"""Problems from a user's own files: ``conll:PATH`` and ``csv:PATH``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..tasks import Task
from .encoding import OPTIONS, table_problem, text_problem
from .fitting import examples, label_task, number_task, split
from .problem import Problem, suggest
from .readers import column_names, read_columns, read_table

SPLITS = ("train", "dev", "test")
FEWEST = 20  #: rows or sentences of a file that is split here
MOST_CATEGORIES = 100  #: of a text column among the inputs
MISSING_CELLS = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})  #: in lower case
TABLE_SETTINGS = {"epochs": 40, "batch_size": 32, "lr": 2e-3}

_TEXT_OPTIONS = {"encoder"}.union(*OPTIONS.values())


def conll(name: str, path: str, options: Mapping[str, Any]) -> Problem:
    """Sentences of a column file, a task for each ``task=column`` in the options.

    ``path`` is a file, split 80/10/10 by a fixed seed, or a folder with a file for each of train, dev and
    test (each with the word in its name). A column goes by its name (of CoNLL-U, or of the file's
    ``# global.columns`` line) or by its number from 0; ``tokens`` is ``form``, else 0. Labels that all are
    O, B-TYPE or I-TYPE are scored by span F1, others by accuracy; a label ``_`` is a missing one.
    """
    encoder = {key: value for key, value in options.items() if key in _TEXT_OPTIONS}
    tags = {key: value for key, value in options.items() if key not in {*encoder, "tokens"}}
    if not tags:
        raise ValueError(f"{name}: expected tags, a column for each task, as in ner=3,pos=upos; found none.")
    columns = {"tokens": options.get("tokens"), **tags}
    files = _files(Path(path).expanduser())
    read = {part: _tagged(file, columns) for part, file in files.items()}
    if len(read) == 1:
        read = _split(read[""], path, "sentences", 0.1)
    tasks = []
    for tag in tags:
        try:
            tasks.append(
                label_task(tag, "tokens", {part: [y[tag] for _, y in s] for part, s in read.items()})
            )
        except ValueError as error:
            raise ValueError(f"{path}, column {tags[tag]}: {error}") from error
    return text_problem(name, tasks, examples(tasks, read), encoder)


def _files(path: Path) -> dict[str, Path]:
    """The file itself under "", or the files of a folder by split."""
    if path.is_file():
        return {"": path}
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: there is no such file or folder.")
    found: dict[str, Path] = {}
    for part in SPLITS:
        matches = sorted(file for file in path.iterdir() if file.is_file() and part in file.name.lower())
        if len(matches) != 1:
            names = ", ".join(file.name for file in matches) or "none"
            raise ValueError(f"{path}: expected one file with {part!r} in its name, found {names}.")
        found[part] = matches[0]
    return found


def _tagged(path: Path, columns: Mapping[str, Any]) -> list[tuple[list[str], dict[str, list[str | None]]]]:
    """Words and labels by task of each sentence."""
    names, sentences = column_names(path), read_columns(path)
    width = len(sentences[0][0])
    index = {key: _column(path, column, names, width) for key, column in columns.items()}
    words = index.pop("tokens")
    return [
        (
            [row[words] for row in rows],
            {tag: [None if row[i] == "_" else row[i] for row in rows] for tag, i in index.items()},
        )
        for rows in sentences
    ]


def _column(path: Path, column: Any, names: Sequence[str], width: int) -> int:
    """Number of a column given by name or number; None: the words' own."""
    if column is None:
        return names.index("form") if "form" in names else 0
    text = str(column)
    if text.isdecimal() and int(text) < width:
        return int(text)
    if text.lower() in names:
        return names.index(text.lower())
    known = [*names, *([] if names else map(str, range(width)))]
    raise ValueError(f"{path}: there is no column {text!r}; {suggest(text.lower(), known)}")


def table(name: str, path: str, options: Mapping[str, Any]) -> Problem:
    """Rows of a CSV file with a header line, split 70/15/15 by a fixed seed.

    ``classify`` and ``regress``: columns (one or a list) that are tasks; ``ignore``: columns left out, such
    as identifiers. The others are inputs: numbers as they are, text one-hot. A missing cell (empty, NA, NaN,
    null, none, ?) is the training mean in a column of numbers, a category of its own in one of text, and a
    missing label in a target. Columns with a single value in training are dropped.
    """
    file = Path(path).expanduser()
    if not file.is_file():
        raise FileNotFoundError(f"{path}: there is no such file.")
    rows = read_table(file)
    chosen = {key: _names(path, options.get(key), rows[0]) for key in ("classify", "regress", "ignore")}
    targets = [*chosen["classify"], *chosen["regress"]]
    if not targets or len(set(targets)) < len(targets):
        found = ", ".join(targets) or "none"
        raise ValueError(f"{path}: expected different columns in classify and regress, found {found}.")
    items = [(row, {t: _target(path, t, row[t], t in chosen["regress"]) for t in targets}) for row in rows]
    read = _split(items, path, "rows", 0.15)
    tasks = _table_tasks(path, read, targets, chosen["regress"])
    inputs = [column for column in rows[0] if column not in {*targets, *chosen["ignore"]}]
    vectors = _vectors(path, {part: [row for row, _ in pairs] for part, pairs in read.items()}, inputs)
    encoded = {part: [(x, y) for x, (_, y) in zip(vectors[part], read[part], strict=True)] for part in read}
    mlp = {key: value for key, value in options.items() if key not in chosen}
    return table_problem(name, tasks, examples(tasks, encoded), mlp, TABLE_SETTINGS)


def _table_tasks(
    path: str, splits: Mapping[str, Sequence[tuple[Any, Any]]], targets: Sequence[str], regress: Sequence[str]
) -> list[Task]:
    tasks = []
    for target in targets:
        labels = {part: [y[target] for _, y in pairs] for part, pairs in splits.items()}
        try:
            if target in regress:
                tasks.append(number_task(target, labels["train"], ("rmse", "pearson")))
            else:
                tasks.append(label_task(target, "classification", labels))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return tasks


def _names(path: str, given: Any, columns: Mapping[str, Any]) -> list[str]:
    names = [
        str(name) for name in (given if isinstance(given, (list, tuple)) else [given]) if name is not None
    ]
    for name in names:
        if name not in columns:
            raise ValueError(f"{path}: there is no column {name!r}; {suggest(name, columns)}")
    return names


def _target(path: str, column: str, cell: str, is_number: bool) -> str | float | None:
    if cell.lower() in MISSING_CELLS:
        return None
    if not is_number:
        return cell
    value = _number(cell)
    if value is None:
        raise ValueError(f"{path}: column {column!r} should hold numbers to be regressed, found {cell!r}.")
    return value


def _number(cell: str) -> float | None:
    try:
        value = float(cell)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _vectors(
    path: str, splits: Mapping[str, Sequence[Mapping[str, str]]], columns: Sequence[str]
) -> dict[str, list[list[float]]]:
    """Rows as numbers. What a column holds is read off all rows, what is fitted off the training rows."""
    parts: dict[str, list[np.ndarray]] = {part: [] for part in splits}
    for column in columns:
        cells = {part: [row[column] for row in rows] for part, rows in splits.items()}
        known = [c for part in cells.values() for c in part if c.lower() not in MISSING_CELLS]
        numeric = all(_number(cell) is not None for cell in known)
        encode = _numbers if numeric else _one_hot
        categories = sorted({cell for cell in cells["train"]})
        if not numeric and len(categories) > MOST_CATEGORIES:
            raise ValueError(
                f"{path}: text column {column!r} has {len(categories)} different values, more than "
                f"{MOST_CATEGORIES}: leave it out with ignore={column}."
            )
        if len(categories) > 1:
            for part, values in cells.items():
                parts[part].append(encode(values, cells["train"]))
    if not parts["train"]:
        raise ValueError(f"{path}: no input column is left: expected one that is no target and not constant.")
    return {part: np.concatenate(blocks, 1).tolist() for part, blocks in parts.items()}


def _numbers(cells: Sequence[str], train: Sequence[str]) -> np.ndarray:
    known = [value for cell in train if (value := _number(cell)) is not None]
    mean = sum(known) / max(len(known), 1)
    values = [_number(cell) for cell in cells]
    return np.array([[mean if value is None else value] for value in values])


def _one_hot(cells: Sequence[str], train: Sequence[str]) -> np.ndarray:
    """A column for each category of training; none is set for another category."""
    return np.array([[float(cell == category) for category in sorted(set(train))] for cell in cells])


def _split(items: list[Any], path: str, what: str, share: float) -> dict[str, list[Any]]:
    if len(items) < FEWEST:
        raise ValueError(f"{path}: expected at least {FEWEST} {what} to split, found {len(items)}.")
    return split(items, dev=share, test=share)
