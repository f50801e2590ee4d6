"""Tox21: twelve assays of toxicity for each molecule, many of them not measured."""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..problem import Problem
from .download import data_file
from .from_examples import text_problem
from .labels import examples, label_task, split

#: a bracket atom, a two-letter element, a ring number of two digits, or one character
_TOKEN = re.compile(r"\[[^\]]*\]|Br|Cl|%\d\d|.")

Molecule = tuple[list[str], dict[str, str | None]]  # tokens of its SMILES, and outcomes by assay


def tox21(name: str, options: Mapping[str, Any]) -> Problem:
    """Molecules as SMILES, read token by token as a sentence is, and 12 assays, "0" or "1".

    17 % of the outcomes are missing and 7.5 % of the others positive. Split 80/10/10 by a fixed seed, at
    random and not by scaffold. The file has 8,014 rows of 7,831 molecules: the rows of one are joined, so
    that no molecule is on both sides of the split.
    """
    assays, molecules = read_molecules(data_file("molecules/tox21.csv.gz"))
    splits = split(molecules, dev=0.1, test=0.1)
    tasks = [
        label_task(
            assay,
            "classification",
            {part: [y[assay] for _, y in items] for part, items in splits.items()},
            ("auroc", "average_precision"),
        )
        for assay in assays
    ]
    settings = {"bilstm": {"epochs": 6, "batch_size": 32, "lr": 2e-3}}
    dims: dict[str, Any] = {
        "hidden": 64,
        "dropout": 0.2,
        "word_dim": 32,
        "char_dim": 16,
        "char_filters": 32,
        "word_dropout": 0.05,
    }
    return text_problem(name, tasks, examples(tasks, splits), options, settings=settings, **dims)


def read_molecules(path: Path) -> tuple[list[str], list[Molecule]]:
    """Assays and molecules of a gzipped table with the columns ``mol_id`` and ``smiles`` and one an assay.

    The outcome of a molecule of several rows is the first known one.
    """
    with gzip.open(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assays = [column for column in rows[0] if column not in ("mol_id", "smiles")]
    found: dict[str, dict[str, str | None]] = {}
    for row in rows:
        known = found.setdefault(row["smiles"], dict.fromkeys(assays))
        for assay in assays:
            known[assay] = known[assay] or row[assay] or None
    return assays, [(_TOKEN.findall(smiles), outcomes) for smiles, outcomes in found.items()]
