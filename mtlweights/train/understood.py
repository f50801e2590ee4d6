"""What a run leaves of what its model has learnt, in plain values: ``understanding.json`` in its folder."""

from __future__ import annotations

import json
import math
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from ..files.atomic import write
from ..files.reading import read_json
from ..problems.models import BiLSTM
from .scoring import is_labelled, labelled
from .understanding import TaskTrace, attributions, project

if TYPE_CHECKING:
    from ..problems import Problem, Task
    from .history import History

FILE = "understanding.json"
ROWS, STATES, LOOKED_AT, LONGEST = 64, 500, 50, 20  # examples of the trace, of the states; sentences, words


class Understanding:
    """Traces a run, and writes what there is to see of its model beside it, epoch by epoch.

    For `mtlweights.train.fit`'s ``after_epoch``; once it is over, `end` adds what is seen of the model that
    was kept. A run that goes on from its checkpoint goes on with its trace.

    Args:
        folder: of the run.

    Raises:
        ImportError: captum is not installed, and the model reads words.
        ValueError: a task has no label in the training split.
    """

    def __init__(self, model: nn.Module, problem: Problem, folder: Path) -> None:
        if _reads_words(model) and find_spec("captum") is None:
            raise ImportError("what words add needs captum: pip install 'mtlweights[understand]'")
        self.problem, self.path = problem, folder / FILE
        self.trace = TaskTrace(model, problem, rows=_rows(problem))
        self.before = _read(self.path)

    def __call__(self, history: History) -> None:
        """Measure, and write the trace so far."""
        if self.before is not None:
            self._go_on(self.before, len(history.rows))
            self.before = None
        self.trace(history)
        self._write({})

    def end(self, model: nn.Module) -> Path:
        """Write it with the model's words and states."""
        words = words_of(model, self.problem) if _reads_words(model) else []
        return self._write({"words": words, "states": states_of(model, self.problem)})

    def _go_on(self, before: dict[str, Any], epoch: int) -> None:
        """Take over what was measured before this epoch."""
        trace, kept = self.trace, [k for k, seen in enumerate(before["epochs"]) if seen < epoch]
        if before["tasks"] != trace.tasks or len(kept) != epoch - 1:
            return
        trace.epochs += [before["epochs"][k] for k in kept]
        trace.affinity += [before["affinity"][k] for k in kept]
        both: Any = {"norms": trace.norms, "cosines": trace.cosines}
        for key, own in both.items():
            for layer, values in before[key].items():
                own[layer] = np.array([values[k] for k in kept], dtype=float).tolist()  # None is NaN

    def _write(self, more: dict[str, Any]) -> Path:
        trace = self.trace
        found: dict[str, Any] = {"tasks": trace.tasks, "epochs": trace.epochs, "affinity": trace.affinity}
        found |= {"norms": trace.norms, "cosines": trace.cosines, **more}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return write(self.path, json.dumps(_plain(found), ensure_ascii=False, allow_nan=False))


def _read(path: Path) -> dict[str, Any] | None:
    """What an earlier part of the run has left; None if that is nothing that can be read."""
    try:
        found = read_json(path)
    except (OSError, ValueError):
        return None
    known = isinstance(found, dict) and {"tasks", "epochs", "affinity", "norms", "cosines"} <= found.keys()
    return found if known else None


def words_of(model: nn.Module, problem: Problem) -> list[dict[str, Any]]:
    """What each word of a test sentence adds to the label that a head gives, for every head of labels.

    The sentence is the one with the most different labels among the first, or the longest, the word the
    first whose label is not the most frequent one.
    """
    found: list[dict[str, Any]] = []
    for task in problem.tasks:
        sentences = [e for e in problem.splits["test"] if is_labelled(task, e) and e["input"]][:LOOKED_AT]
        short = [e for e in sentences if len(e["input"]) <= LONGEST] or sentences[:1]
        if not (task.labels and short):
            continue
        example = max(short, key=lambda e: (_several(task, e["targets"][task.name]), len(e["input"])))
        sentence = example["input"]
        word: int | None = None
        if task.kind == "tokens":
            targets = [k if k >= 0 else -1 for k in example["targets"][task.name]]
            most = _most(task, problem)
            rare = [k for k, label in enumerate(targets) if label >= 0 and label != most]
            word = (rare or [0])[0]
        label, values = attributions(model, problem, sentence, task.name, word)
        found.append(
            {"task": task.name, "sentence": [*sentence], "word": word, "label": label, "values": values}
        )
    return found


def states_of(model: nn.Module, problem: Problem) -> dict[str, Any]:
    """The encoder's states of test examples on two axes, and a group for each example."""
    rows = problem.splits["test"][:STATES]
    title, groups = _groups(problem, rows)
    points = project(model, problem, "test", STATES)
    if points.shape[1] < 2:
        points = np.pad(points, ((0, 0), (0, 2 - points.shape[1])))
    return {"title": title, "points": points.tolist(), "groups": groups}


def _groups(problem: Problem, rows: list[Any]) -> tuple[str, list[str]]:
    """By the first task that tells them apart: labels; whether a word has a rare one; above the mean."""
    for kind in ("classification", "tokens", "regression"):
        for task in (task for task in problem.tasks if task.kind == kind):
            given = [e["targets"].get(task.name) if is_labelled(task, e) else None for e in rows]
            most = _most(task, problem) if kind == "tokens" else -1
            groups = [_group(task, value, most) for value in given]
            if len(set(groups)) > 1:
                return task.name, groups
    return "", [""] * len(rows)


def _group(task: Task, value: Any, most: int) -> str:
    if value is None:
        return "unlabelled"
    if task.kind == "classification":
        return task.labels[int(value)]
    if task.kind == "regression":
        return f"above {task.mean:.4g}" if value > task.mean else f"to {task.mean:.4g}"
    return f"{task.labels[most]} alone" if {k for k in value if k >= 0} <= {most} else "others too"


def _most(task: Task, problem: Problem) -> int:
    """The most frequent label of a task's words."""
    given = (e["targets"][task.name] for e in problem.splits["test"][:STATES] if is_labelled(task, e))
    counts = np.bincount([k for values in given for k in values if k >= 0], minlength=1)
    return int(counts.argmax())


def _several(task: Task, target: Any) -> int:
    return len({k for k in target if k >= 0}) if task.kind == "tokens" else 1


def _reads_words(model: nn.Module) -> bool:
    """Whether words are all it reads: beside frozen features they would be a part of it."""
    encoder: Any = model.encoder
    return isinstance(encoder, BiLSTM) and encoder.mix is None


def _rows(problem: Problem) -> int:
    """As many examples as it takes to have a label for every task, from `ROWS`."""
    examples = labelled(problem, "train")
    first = [
        next((k for k, e in enumerate(examples) if is_labelled(task, e)), 0) + 1 for task in problem.tasks
    ]
    return max(ROWS, *first)


def _plain(value: Any) -> Any:
    """The same with None for NaN."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
