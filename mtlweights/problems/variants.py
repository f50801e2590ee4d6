"""How any problem is trained, by options that all of them take: ``tagging:training=cascaded``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..specs import suggest
from .problem import Problem
from .task import Task

TRAINING = ("joint", "cascaded", "staged")
OPTIONS = ("training", "order")  #: no names of tasks
_SIMPLE_FIRST = {"pos": 0, "intent": 0}  #: of the built-in problems, the tasks that others read


def varied(problem: Problem, options: Mapping[str, Any]) -> Problem:
    """The problem, trained as its spec's options say.

    ``training``: ``joint``; ``cascaded``, in which each task's output is read by the heads of those after it,
    end to end (`mtlweights.problems.models.CascadedModel`); or ``staged``, the same stage by stage: the tasks
    are taken up one after the other, and no loss goes back through the outputs that are read. ``order``: the
    tasks of a cascade, the first one first; without it, parts of speech before entities, an intent before
    its slots, and else the problem's own order.

    Raises:
        ValueError: another training or order, or tasks without heads of their own to put in a chain.
    """
    training = options.get("training", "joint")
    if training not in TRAINING:
        raise ValueError(f"{problem.name}: there is no training {training!r}; {suggest(training, TRAINING)}")
    if training == "joint":
        if "order" in options:
            raise ValueError(f"{problem.name}: order= belongs to training=cascaded or training=staged.")
        return problem
    if type(problem).build is not Problem.build or len(problem.tasks) < 2:
        raise ValueError(
            f"{problem.name}: training={training} takes two tasks or more, with heads of labels or "
            "numbers to put in a chain."
        )
    order = _order(problem.name, problem.tasks, options.get("order"))
    return replace(problem, cascade=order, staged=training == "staged")


def _order(name: str, tasks: Sequence[Task], given: Any) -> tuple[str, ...]:
    known = [task.name for task in tasks]
    if given is None:
        return tuple(sorted(known, key=lambda task: _SIMPLE_FIRST.get(task, 1)))
    order = tuple(map(str, given)) if isinstance(given, (list, tuple)) else (str(given),)
    for task in order:
        if task not in known:
            raise ValueError(f"{name}: order has {task!r}, which is no task; {suggest(task, known)}")
    if sorted(order) != sorted(known):
        raise ValueError(f"{name}: order takes every task once, [{','.join(known)}], found {[*order]}.")
    return order
