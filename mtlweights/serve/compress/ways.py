"""All ways of making a model smaller, each written as a folder, and the table that compares them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ... import problems, train
from ...balancer.balancer import Balancer
from ...files.atomic import prepare, replacing
from ...problems import Problem
from ...problems.models import MultiTaskModel, Pair
from ...specs import parse_spec
from ..export import PROGRAM, export
from ..live import LiveFrozen
from ..trained import TrainedModel
from . import quality
from .halve import halve
from .prune import prune
from .quantise import int8, int8_torchao
from .table import Row, markdown_table
from .timing import latencies

WAYS = ("onnx", "int8", "torchao", "pruned", "half")
_LACKS = {
    "torchao": "the package torchao is not installed",
    "half": "the trunk has one layer alone",
}

Shown = Callable[[Iterable[str], int, str], Iterable[str]]


def compress(
    model: TrainedModel,
    problem: Problem,
    folder: str | Path,
    ways: Sequence[str] = WAYS,
    *,
    keep: float = 0.5,
    epochs: int | None = None,
    say: Callable[[str], None] = lambda line: None,
    shown: Shown | None = None,
) -> list[Row]:
    """Write a folder for each way into ``folder``, and the table of all as ``README.md`` and ``table.json``.

    ``onnx`` is the exported graph, ``int8`` that one quantised, ``torchao`` the PyTorch model with int8
    linear layers (measured alone, where torchao is installed); ``pruned`` has the share ``keep`` of the
    hidden units and ``half`` half of the trunk's layers, both fine-tuned for ``epochs`` (a quarter of the
    training's) under the same balancer, exported and quantised.

    Args:
        problem: what it was trained on; its test split is scored.
        say: is told what is done next.
        shown: makes a bar of what is gone through, from items, their number and their unit, and has
            fine-tuning show its own.

    Raises:
        ValueError: the problem is not the model's, an unknown way, or nothing that a way knows.
        ImportError: a package of the extra ``export`` is missing. OSError: ``folder`` cannot be written.
    """
    if unknown := sorted(set(ways) - set(WAYS)):
        raise ValueError(f"there is no way {unknown[0]!r}; known: {', '.join(WAYS)}.")
    problem = _same(model, problem)
    path = prepare(folder)
    models = {"pytorch": model}
    for way in WAYS:
        if way in ways or (way == "onnx" and "int8" in ways):
            say(f"{way} ...")
            found = _made(way, model, problem, models, path, keep, epochs, shown is not None)
            if found is None:
                say(f"{way} is left out: {_LACKS[way]}")
            else:
                models[way] = found
    say("scores and times ...")
    rows = _rows(models, problem, path, shown)
    note = f"{model.problem}, test split; {', '.join(task.name for task in model.tasks)}."
    with replacing(path / "README.md") as file:
        file.write(markdown_table(rows, note).encode())
    with replacing(path / "table.json") as file:
        file.write(json.dumps([row.plain() for row in rows], indent=1).encode() + b"\n")
    return rows


def _made(
    way: str,
    model: TrainedModel,
    problem: Problem,
    models: dict[str, TrainedModel],
    path: Path,
    keep: float,
    epochs: int | None,
    progress: bool,
) -> TrainedModel | None:
    if way == "onnx":
        return _exported(model, path / "onnx")
    if way == "int8":
        return int8(models["onnx"], path / "int8")
    if way == "torchao":
        return int8_torchao(model)
    whole = _trainable(model)
    module = prune(whole, keep) if way == "pruned" else halve(whole)
    if module is None:
        return None
    said = f"{keep:g} of the hidden units" if way == "pruned" else "half of the layers"
    tuned = _fine_tuned(model, module, problem, epochs, said, progress)
    return int8(_exported(tuned, path / f"{way}-onnx"), path / way)


def _exported(model: TrainedModel, folder: Path) -> TrainedModel:
    export(model, folder)
    return TrainedModel.from_pretrained(folder)


def _same(model: TrainedModel, problem: Problem) -> Problem:
    """The problem with the model's tasks.

    Raises:
        ValueError: its data or labels are others.
    """
    said, found = model.about.get("data"), problems.digest(problem)
    problem = problem.only(*(task.name for task in model.tasks))
    labels = [(task.name, task.labels) for task in model.tasks]
    if labels != [(task.name, task.labels) for task in problem.tasks] or said not in (None, found):
        raise ValueError(f"{problem.name} is not what the model was trained on: its data or labels changed.")
    return problem


def _trainable(model: TrainedModel) -> MultiTaskModel:
    """The module that trains on the problem's inputs: a frozen transformer's states are cached for it."""
    module = model.module
    encoder: Any = module.encoder
    if isinstance(encoder, LiveFrozen):
        encoder = encoder.encoder
    elif isinstance(encoder, Pair) and isinstance(encoder.encoder, LiveFrozen):
        encoder = Pair(encoder.encoder.encoder)
    return module.around(encoder)


def _fine_tuned(
    model: TrainedModel,
    module: MultiTaskModel,
    problem: Problem,
    epochs: int | None,
    said: str,
    progress: bool,
) -> TrainedModel:
    """The module after training under the model's own balancer, at its own settings but for the epochs."""
    own: dict[str, Any] = {**problem.settings, **model.about.get("settings", {})}
    least = len(problem.cascade) if problem.staged else 1
    own["epochs"] = max(least, epochs or own.get("epochs", 10) // 4)
    settings = train.Settings(**own)
    strategy = model.about.get("strategy", "equal")
    name, options = parse_spec(strategy)
    tasks = [task.name for task in problem.tasks]
    balancer = Balancer(name, tasks, module, **{"seed": settings.seed, **options})
    train.fit(module, balancer, problem, settings, progress=progress)
    change = f"{said}, fine-tuned for {settings.epochs} epochs under {strategy}"
    about = {**model.about, "changes": [*model.about.get("changes", ()), change]}
    about.pop("scores", None)
    return TrainedModel.from_problem(replace(problem, name=model.problem or problem.name), module, about)


def _rows(models: dict[str, TrainedModel], problem: Problem, path: Path, shown: Shown | None) -> list[Row]:
    times = latencies(models, _raw(models["pytorch"], problem))
    names = models if shown is None else shown(models, len(models), "model")
    scores = {
        name: quality.scores(problem.tasks, quality.outputs_of(models[name], problem)) for name in names
    }
    rows = []
    for name, model in models.items():
        found = quality.qualities(scores[name], scores["pytorch"])
        size = _weights(model) if name == "pytorch" else _size(path / name)
        rows.append(Row(name, size, *times[name], found))
    return rows


def _raw(model: TrainedModel, problem: Problem) -> list[object] | None:
    """Examples as a user gives them; of a table they are known as numbers alone, so that they are drawn."""
    if model.kind == "table":
        return None
    return [example["input"] for example in problem.splits["test"]]


def _size(folder: Path) -> int | None:
    """Bytes of the files that using the model takes."""
    if not folder.is_dir():
        return None
    kept = [file for file in folder.rglob("*") if file.is_file() and file.name not in (PROGRAM, "README.md")]
    return sum(file.stat().st_size for file in kept)


def _weights(model: TrainedModel) -> int:
    return sum(value.numel() * value.element_size() for value in model.module.state_dict().values())
