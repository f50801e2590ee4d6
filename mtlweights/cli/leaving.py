"""What a run leaves beside its result: the model's folder, with what is known of it on its card."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from ..bench.runspec import RunSpec
    from ..problems import Problem

FOLDER = "model"
_SAME = ("problem", "strategy", "only", "data", "code")


def leave_model(
    model: nn.Module, problem: Problem, spec: RunSpec, result: dict[str, Any], folder: Path
) -> str:
    """Write ``folder/model``; a line that says where it is, or why there is none."""
    from ..serve import TrainedModel

    about = {
        "strategy": spec.strategy,
        "settings": spec.settings.said(),
        "examples": {split: len(examples) for split, examples in problem.splits.items()},
        "notes": list(problem.notes),
        "data": spec.data,
        "scores": _scores(result, _other_seeds(result, folder)),
    }
    try:
        left = TrainedModel.from_problem(problem, model, about)
    except ValueError as error:
        return f"none ({error})"
    return str(left.save_pretrained(folder / FOLDER))


def _other_seeds(result: Mapping[str, Any], folder: Path) -> list[Mapping[str, Any]]:
    """The results of the same run under other seeds, in this folder and those beside it."""
    from ..bench.results import RUNS, read_result

    def what(found: Mapping[str, Any]) -> list[Any]:
        settings = {key: value for key, value in found["settings"].items() if key != "seed"}
        return [found.get(key) for key in _SAME] + [settings]

    found = {result["seed"]: result}
    name = result["id"].rpartition("-s")[0]  # a result of other words is another run, whatever is in it
    for path in sorted(folder.absolute().parent.glob(f"*/{RUNS}/{name}-s*.json")):
        try:
            other = read_result(path)
        except (ValueError, OSError) as error:
            warnings.warn(f"not on the model card: {error}", stacklevel=2)
            continue
        if other["status"] == "ok" and other["test"] and what(other) == what(result):
            found.setdefault(other["seed"], other)
    return [*found.values()]


def _scores(result: Mapping[str, Any], seeds: list[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each task and metric: on dev and test, and over the seeds the mean on test and half its interval."""
    from ..bench.statistics import fixed_t

    scores: dict[str, dict[str, Any]] = {}
    for task, metrics in result["test"].items():
        scores[task] = {}
        for metric, value in metrics.items():
            row = scores[task][metric] = {"dev": result["dev"][task][metric], "test": value}
            values = [found["test"][task][metric] for found in seeds]
            if len(values) > 1 and None not in values:
                over = fixed_t(values)
                row |= {"mean": over.mean, "half": over.half, "seeds": over.n}
    return scores
