"""The built-in problems. Each takes the options of its spec."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..models.features import Feature
from ..problem import Problem
from . import grammar
from .download import data_file
from .from_examples import table_problem, text_problem
from .labels import examples, label_task, number_task, split
from .readers import read_columns, read_table

SPLITS = ("train", "dev", "test")
_ABALONE = ("sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "rings")
_WORD = re.compile(r"\w+|[^\w\s]")


def tweebank(name: str, options: Mapping[str, Any]) -> Problem:
    """English tweets: entities (Jiang et al. 2022) and parts of speech (Liu et al. 2018)."""
    splits = {}
    for part in SPLITS:
        tagged = read_columns(data_file(f"tweebank/en_tweet-ud-{part}.conllu"))
        entities = read_columns(data_file(f"tweebank/tweebank-ner-{part}.bio"))
        splits[part] = join_tweets(tagged, entities)
    return _tagged(name, splits, options)


def join_tweets(
    tagged: list[list[list[str]]], entities: list[list[list[str]]]
) -> list[tuple[list[str], dict[str, list[str]]]]:
    """Words, ``pos`` and ``ner`` of each tweet of ``tagged`` that is also in ``entities``.

    The two files order the tweets differently and mask users and links by different numbers. So tweets
    match by their words in lower case without digits, and equal ones in order.
    """
    labels = defaultdict(list)
    for rows in entities:
        labels[_key([row[0] for row in rows])].append([row[-1] for row in rows])
    joined = []
    for rows in tagged:
        words = [row[1] for row in rows]
        if matches := labels[_key(words)]:
            joined.append((words, {"ner": matches.pop(0), "pos": [row[3] for row in rows]}))
    return joined


def _key(words: list[str]) -> tuple[str, ...]:
    return tuple(re.sub(r"\d", "", word.lower()) for word in words)


def tagging(name: str, options: Mapping[str, Any]) -> Problem:
    """Sentences of a small grammar, see `problems.data.grammar`; the same on every machine."""
    settings = {"bilstm": {"epochs": 10, "batch_size": 4, "lr": 6e-3}}
    dims = {
        "hidden": 64,
        "word_dim": 48,
        "char_dim": 16,
        "char_filters": 24,
        "dropout": 0.3,
        "word_dropout": 0.1,
    }
    return _tagged(name, grammar.splits(), options, settings=settings, **dims)


def _tagged(name: str, splits: Mapping[str, Any], options: Mapping[str, Any], **defaults: Any) -> Problem:
    tasks = [
        label_task(task, "tokens", {part: [y[task] for _, y in items] for part, items in splits.items()})
        for task in ("ner", "pos")
    ]
    return text_problem(name, tasks, examples(tasks, splits), options, **defaults)


def sick(name: str, options: Mapping[str, Any]) -> Problem:
    """Sentence pairs (Marelli et al. 2014): entailment in three classes, relatedness from 1 to 5."""
    splits = {}
    for part, file in zip(SPLITS, ("SICK_train", "SICK_trial", "SICK_test_annotated"), strict=True):
        splits[part] = [
            (
                (_WORD.findall(row["sentence_A"]), _WORD.findall(row["sentence_B"])),
                {"entailment": row["entailment_judgment"], "relatedness": float(row["relatedness_score"])},
            )
            for row in read_table(data_file(f"sick/{file}.txt"), "\t")
        ]
    classes = {part: [y["entailment"] for _, y in items] for part, items in splits.items()}
    scores: list[Any] = [y["relatedness"] for _, y in splits["train"]]
    tasks = [
        label_task("entailment", "classification", classes),
        number_task("relatedness", scores, ("pearson", "rmse")),
    ]
    short = {"epochs": 4, "batch_size": 32, "lr": 2e-3}
    settings = {"bilstm": short, "frozen": short}
    return text_problem(
        name, tasks, examples(tasks, splits), options, settings=settings, hidden=64, dropout=0.2
    )


def abalone(name: str, options: Mapping[str, Any]) -> Problem:
    """Shellfish (Nash et al. 1994): sex and rings (age) from seven measures; split by a fixed seed."""
    rows = read_table(data_file("abalone/abalone.csv"), header=_ABALONE)
    columns = _ABALONE[1:-1]
    items = [
        ([float(row[key]) for key in columns], {"sex": row["sex"], "rings": float(row["rings"])})
        for row in rows
    ]
    return _table(name, items, columns, "sex", "rings", options, {"epochs": 40, "batch_size": 64, "lr": 2e-3})


def breast_cancer(name: str, options: Mapping[str, Any]) -> Problem:
    """Tumours (Street et al. 1993, as scikit-learn ships them): diagnosis, and radius of the largest nuclei.

    Both from the 20 means and errors of the nuclei's measures. The ten ``worst`` columns (the mean of the
    three largest nuclei) are no inputs: ``worst radius`` is the regression's target, in micrometres.
    """
    try:
        from sklearn.datasets import load_breast_cancer
    except ImportError as error:
        raise ImportError("breast_cancer needs scikit-learn: pip install mtlweights[bench]") from error
    data = load_breast_cancer()
    inputs = [i for i, column in enumerate(data.feature_names) if not column.startswith("worst")]
    radius = list(data.feature_names).index("worst radius")
    items = [
        ([float(row[i]) for i in inputs], {"diagnosis": str(label), "radius": float(row[radius])})
        for row, label in zip(data.data, np.asarray(data.target_names)[data.target], strict=True)
    ]
    columns = [str(data.feature_names[i]) for i in inputs]
    return _table(
        name, items, columns, "diagnosis", "radius", options, {"epochs": 30, "batch_size": 32, "lr": 1e-3}
    )


def _table(
    name: str,
    items: list[tuple[list[float], dict[str, Any]]],
    columns: Sequence[str],
    classify: str,
    regress: str,
    options: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> Problem:
    splits = split(items, dev=0.15, test=0.15)
    classes = {part: [y[classify] for _, y in rows] for part, rows in splits.items()}
    tasks = [
        label_task(classify, "classification", classes),
        number_task(regress, [y[regress] for _, y in splits["train"]], ("rmse", "pearson")),
    ]
    means = np.mean([row for row, _ in splits["train"]], 0).tolist()
    features = [*map(Feature, columns, means)]
    return table_problem(name, tasks, examples(tasks, splits), options, settings, features=features)
