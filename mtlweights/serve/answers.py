"""From a model's outputs to answers: labels with probabilities, numbers in their unit, spans as spans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..problems.spans import to_iob2
from ..problems.task import NUMBERS, Task, is_iob2
from .readings import Reading

DIGITS = 6  #: decimals of a probability


def answers(
    tasks: Sequence[Task],
    outputs: dict[str, np.ndarray],
    readings: Sequence[Reading],
    mask: np.ndarray | None,
) -> list[dict[str, Any]]:
    """An answer per example: task -> what was found.

    - classification: ``label``, its ``probability``, and ``probabilities`` of all labels;
    - regression: ``value``, in the unit of the training data;
    - a label per word: ``words``, ``labels``, their ``probabilities``, and for labels of spans ``spans``,
      each with its ``type``, first word ``start``, ``end`` behind its last word, and the lowest
      ``probability`` of its words; of a text also ``text`` and ``characters``, [start, end] in it.

    Args:
        outputs: task -> the head's output, as in `mtlweights.problems.Task`.
        mask: [B, W], False where the model has not read a word; its label is then None.
    """
    columns = {task.name: _column(task, outputs[task.name], readings, mask) for task in tasks}
    return [{name: column[i] for name, column in columns.items()} for i in range(len(readings))]


def probabilities(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis, in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    found: np.ndarray = shifted / shifted.sum(-1, keepdims=True)
    return found


def _column(
    task: Task, output: np.ndarray, readings: Sequence[Reading], mask: np.ndarray | None
) -> list[dict[str, Any]]:
    if task.kind in NUMBERS:
        return [{"value": float(value) if math.isfinite(value) else None} for value in output]
    shares = probabilities(output)
    if task.kind == "classification":
        return [_label(task, row) for row in shares]
    seen = np.ones(shares.shape[:2], dtype=bool) if mask is None else mask
    return [
        _words(task, row, kept, reading) for row, kept, reading in zip(shares, seen, readings, strict=True)
    ]


def _label(task: Task, shares: np.ndarray) -> dict[str, Any]:
    best = int(shares.argmax())
    every = {label: _rounded(share) for label, share in zip(task.labels, shares, strict=True)}
    return {"label": task.labels[best], "probability": _rounded(shares[best]), "probabilities": every}


def _words(task: Task, shares: np.ndarray, seen: np.ndarray, reading: Reading) -> dict[str, Any]:
    n = len(reading.input)
    best, top = shares[:n].argmax(-1), shares[:n].max(-1)
    labels = [task.labels[i] if kept else None for i, kept in zip(best, seen[:n], strict=True)]
    known = [_rounded(share) if kept else None for share, kept in zip(top, seen[:n], strict=True)]
    found: dict[str, Any] = {"words": reading.input, "labels": labels, "probabilities": known}
    if all(map(is_iob2, task.labels)):
        found["spans"] = _spans(labels, known, reading)
    return found


def _spans(
    labels: Sequence[str | None], shares: Sequence[float | None], reading: Reading
) -> list[dict[str, Any]]:
    """The spans of IOB2 labels; an ``I-`` that continues none starts one."""
    ends: list[tuple[str, int, int]] = []
    for i, label in enumerate(to_iob2([label or "O" for label in labels])):
        if label.startswith("B-"):
            ends.append((label[2:], i, i + 1))
        elif label != "O":
            ends[-1] = (*ends[-1][:2], i + 1)
    return [_span(kind, start, end, shares, reading) for kind, start, end in ends]


def _span(kind: str, start: int, end: int, shares: Sequence[Any], reading: Reading) -> dict[str, Any]:
    found = {"type": kind, "start": start, "end": end, "probability": min(shares[start:end])}
    if reading.text is not None:
        first, last = reading.places[start][0], reading.places[end - 1][1]
        found |= {"text": reading.text[first:last], "characters": [first, last]}
    return found


def _rounded(share: float) -> float:
    value = round(float(share), DIGITS)
    return value if math.isfinite(value) else 0.0
