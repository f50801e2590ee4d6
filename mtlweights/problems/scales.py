"""A problem with the losses of some tasks multiplied, ``tagging@pos*100``: the same tasks in other units.

What a strategy makes of it is a property of the strategy: the metrics do not change, and neither do the data.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace

from ..specs import suggest
from .problem import Problem

_SUFFIX = re.compile(r"(?P<rest>.+)@(?P<task>[^@*]+)\*(?P<factor>[^@*]+)", re.DOTALL)


def split(spec: str) -> tuple[str, dict[str, float]]:
    """``"tagging@pos*100"`` as ``("tagging", {"pos": 100.0})``; without such a suffix the spec and nothing.

    Raises:
        ValueError: a factor is no number above 0, or a task has two.
    """
    scales: dict[str, float] = {}
    rest = spec.strip()
    while match := _SUFFIX.fullmatch(rest):
        task = match["task"].strip()
        try:
            factor = float(match["factor"])
        except ValueError:
            factor = math.nan
        if not 0 < factor < math.inf:
            raise ValueError(f"expected PROBLEM@TASK*NUMBER with a number above 0, found {spec!r}.")
        if task in scales:
            raise ValueError(f"task {task!r} is scaled twice in {spec!r}.")
        rest, scales = match["rest"], {task: factor, **scales}
    return rest, scales


def join(spec: str, scales: Mapping[str, float]) -> str:
    """Write it so that :func:`split` reads it back."""
    return spec + "".join(f"@{task}*{factor:g}" for task, factor in scales.items())


def scaled(problem: Problem, scales: Mapping[str, float]) -> Problem:
    """The problem with these tasks' losses multiplied.

    Raises:
        ValueError: there is no such task.
    """
    known = {task.name: task for task in problem.tasks}
    for name in scales:
        if name not in known:
            raise ValueError(f"{problem.name} has no task {name!r} to scale; {suggest(name, known)}")
    tasks = tuple(replace(task, scale=scales.get(task.name, task.scale)) for task in problem.tasks)
    return replace(problem, name=join(problem.name, scales), tasks=tasks)
