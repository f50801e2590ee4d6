"""SNIPS and ATIS: what a user wants (one intent an utterance) and the words that say it (slots)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..problem import Problem
from .download import data_file
from .from_examples import text_problem
from .labels import examples, label_task
from .readers import iterate_lines

_FILES = ("seq.in", "seq.out", "label")
_PARTS = {"train": "train", "dev": "valid", "test": "test"}

Utterance = tuple[list[str], dict[str, Any]]  # words, and labels by task


def _utterances(corpus: str, name: str, options: Mapping[str, Any]) -> Problem:
    """Slots in IOB2, scored by span F1, and the intent; the split of Goo et al. 2018."""
    splits = {
        part: read_utterances(*(data_file(f"slu/{corpus}/{folder}/{file}") for file in _FILES))
        for part, folder in _PARTS.items()
    }
    slots = {part: [y["slots"] for _, y in items] for part, items in splits.items()}
    intents = {part: [y["intent"] for _, y in items] for part, items in splits.items()}
    tasks = [label_task("slots", "tokens", slots), label_task("intent", "classification", intents)]
    short = {"epochs": {"snips": 4, "atis": 8}[corpus], "batch_size": 32, "lr": 3e-3}
    settings = {"bilstm": short, "frozen": short}
    return text_problem(name, tasks, examples(tasks, splits), options, settings=settings)


def snips(name: str, options: Mapping[str, Any]) -> Problem:
    """What is said to a voice assistant (Coucke et al. 2018): 39 kinds of slots, 7 intents."""
    return _utterances("snips", name, options)


def atis(name: str, options: Mapping[str, Any]) -> Problem:
    """Enquiries about flights (Hemphill et al. 1990): 83 kinds of slots, 26 intents."""
    return _utterances("atis", name, options)


def read_utterances(words: Path, slots: Path, intents: Path) -> list[Utterance]:
    """Utterances from three files with a line each: words and slots, split at blanks, and an intent.

    Raises:
        ValueError: files of different lengths, or a line with other numbers of words and slots.
    """
    lines = [[line.strip() for _, line in iterate_lines(path)] for path in (words, slots, intents)]
    if len({len(found) for found in lines}) > 1:
        paths = zip(lines, (words, slots, intents), strict=True)
        found = ", ".join(f"{len(found)} in {path}" for found, path in paths)
        raise ValueError(f"expected as many lines of words, slots and intents, found {found}.")
    utterances: list[Utterance] = []
    for number, (said, marked, intent) in enumerate(zip(*lines, strict=True), 1):
        tokens, tags = said.split(), marked.split()
        if len(tokens) != len(tags):
            raise ValueError(f"{slots}, line {number}: expected {len(tokens)} slots, found {len(tags)}.")
        if tokens:
            utterances.append((tokens, {"slots": tags, "intent": intent}))
    return utterances
