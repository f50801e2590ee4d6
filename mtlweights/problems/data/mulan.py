"""Mulan's multi-target regression tables: 2 to 16 targets in raw units on 49 to 1,137 rows.

E. Spyromitros-Xioufis, G. Tsoumakas, W. Groves, I. Vlahavas, "Multi-target regression via input space
expansion: treating targets as inputs", Machine Learning 104:55, 2016.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..problem import Problem
from .arff import read_arff
from .download import data_file
from .from_examples import table_problem
from .labels import SPLIT_SEED
from .records import read_records
from .table import UNITS
from .tabular import Targets, build_table

FOLDS = 10
#: number of targets, the last columns of each table
TABLES = {
    "andro": 6,
    "atp1d": 6,
    "atp7d": 6,
    "edm": 2,
    "enb": 2,
    "jura": 3,
    "oes10": 16,
    "oes97": 16,
    "osales": 12,
    "scpf": 3,
    "sf1": 3,
    "sf2": 3,
    "slump": 3,
    "wq": 14,
}
_SETTINGS = {"epochs": 60, "batch_size": 16, "lr": 2e-3}


def mulan(name: str, table: str, options: Mapping[str, Any]) -> Problem:
    """One of `TABLES`; every target is scored by RRMSE, whose mean over them is aRRMSE.

    ``fold``, 1 to 10, is the tenth of the rows that is tested on, as in the published ten-fold figures; the
    next one is for development. The order of the rows before that is drawn with a fixed seed. Losses are in
    squared raw units unless ``units=standard``.

    Raises:
        ValueError: an unknown option.
    """
    fold, units = options.get("fold", 1), options.get("units", "raw")
    if type(fold) is not int or not 1 <= fold <= FOLDS:
        raise ValueError(f"{name}: fold should be a whole number from 1 to {FOLDS}, found {fold!r}.")
    if units not in UNITS:
        raise ValueError(f"{name}: units should be raw or standard, found {units!r}.")
    file = data_file(f"mtr/{table}.arff")
    columns, n = read_records(file, read_arff(file))
    inputs, targets = list(columns)[: -TABLES[table]], list(columns)[-TABLES[table] :]
    parts = folds(n, fold)
    regress = Targets((), targets, units == "standard", ("rrmse", "rmse"))
    found = build_table(name, columns, inputs, parts, regress)
    mlp = {key: value for key, value in options.items() if key not in ("fold", "units")}
    return table_problem(name, found.tasks, found.splits, mlp, _SETTINGS, features=found.features)


def loader(table: str) -> Callable[[str, Mapping[str, Any]], Problem]:
    """What makes the problem of one of `TABLES` from its spec."""

    def load(name: str, options: Mapping[str, Any]) -> Problem:
        return mulan(name, table, options)

    return load


def folds(n: int, fold: int) -> dict[str, np.ndarray]:
    """Row numbers of each split: every tenth one of a fixed order is in a fold."""
    order = list(range(n))
    random.Random(SPLIT_SEED).shuffle(order)
    of = [order[k::FOLDS] for k in range(FOLDS)]
    test, dev = of[fold - 1], of[fold % FOLDS]
    train = [row for k, rows in enumerate(of) if k not in (fold - 1, fold % FOLDS) for row in rows]
    return {"train": np.array(train), "dev": np.array(dev), "test": np.array(test)}
