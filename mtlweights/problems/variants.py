"""How any problem is trained, by options that all of them take: ``tagging:training=cascaded``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from ..specs import suggest
from .data.labels import examples, label_task
from .models import Encoder, FrozenInputs
from .models.lora import with_lora
from .problem import Example, Problem
from .task import Task

TRAINING = ("joint", "cascaded", "staged")
OPTIONS = ("training", "order", "lora", "auxiliary")  #: no names of tasks
MASKED, MASK = "masked", "[MASK]"  #: the auxiliary task, and what stands for a word it asks for
_SHARE, _WORDS = 0.15, 300  # of a sentence's words that are masked, and how many words may be
_SIMPLE_FIRST = {"pos": 0, "intent": 0}  #: of the built-in problems, the tasks that others read


def varied(problem: Problem, options: Mapping[str, Any]) -> Problem:
    """The problem, trained as its spec's options say.

    ``training``: ``joint``; ``cascaded``, in which each task's output is read by the heads of those after it,
    end to end (`mtlweights.problems.models.CascadedModel`); or ``staged``, the same stage by stage: the tasks
    are taken up one after the other, and no loss goes back through the outputs that are read. ``order``: the
    tasks of a cascade, the first one first; without it, parts of speech before entities, an intent before
    its slots, and else the problem's own order.

    ``lora=8``: of a transformer only changes of that rank are trained, see `models.lora`.
    ``auxiliary=masked``: a task more, which needs no labels, see `masked`.

    Raises:
        ValueError: another value of an option, or a problem that it does not suit.
    """
    if "lora" in options:
        rank = options["lora"]
        if type(rank) is not int or rank < 1:
            raise ValueError(f"{problem.name}: lora should be a rank, a whole number from 1, found {rank!r}.")
        problem = replace(problem, encoder=partial(_lora, problem.encoder, rank))
    if "auxiliary" in options:
        if options["auxiliary"] != MASKED:
            raise ValueError(f"{problem.name}: auxiliary should be masked, found {options['auxiliary']!r}.")
        problem = masked(problem)
    return _trained(problem, options)


def _lora(encoder: Callable[[], Encoder], rank: int) -> Encoder:
    return with_lora(encoder(), rank)


def masked(problem: Problem) -> Problem:
    """The problem with a task that sentences label themselves: which word is hidden (Devlin et al., "BERT",
    2019, section 3.1).

    Each split has a copy of its sentences more, in which ``[MASK]`` stands for 15 % of the words, one at
    least, drawn with a fixed seed among the 300 most frequent in training. Those words are what the copy is
    labelled with, and it has no other label. Sentences without any label give a copy too. The task is
    auxiliary: an epoch is not chosen by it. We depart from BERT in that a word is always replaced.

    Raises:
        ValueError: the examples are no sentences, or their words' states are cached (``encoder=frozen``).
    """
    every = [e["input"] for rows in problem.splits.values() for e in rows]
    if not all(isinstance(s, list) and all(isinstance(word, str) for word in s) for s in every):
        raise ValueError(f"{problem.name}: auxiliary=masked takes sentences, one an example.")
    if isinstance(problem.inputs, FrozenInputs):
        raise ValueError(
            f"{problem.name}: auxiliary=masked changes words: use encoder=bilstm or transformer."
        )
    counts = Counter(word.lower() for e in problem.splits["train"] for word in e["input"])
    known = {word for word, _ in counts.most_common(_WORDS)}
    copies = {part: _hidden(rows, known, part) for part, rows in problem.splits.items()}
    labels = {part: [marks for _, marks in rows] for part, rows in copies.items()}
    task = replace(label_task(MASKED, "tokens", labels, ("accuracy",)), auxiliary=True)
    more = examples([task], {part: [(s, {MASKED: m}) for s, m in rows] for part, rows in copies.items()})
    splits = {part: [*rows, *more[part]] for part, rows in problem.splits.items()}
    return replace(problem, tasks=(*problem.tasks, task), splits=splits)


def _hidden(rows: Sequence[Example], known: set[str], part: str) -> list[tuple[list[str], list[str | None]]]:
    """Sentences with words hidden, and those words."""
    draw, found = random.Random(part), []
    for row in rows:
        words = row["input"]
        places = [k for k, word in enumerate(words) if word.lower() in known]
        chosen = set(draw.sample(places, min(len(places), max(1, round(_SHARE * len(words))))))
        if chosen:
            given = [MASK if k in chosen else word for k, word in enumerate(words)]
            found.append((given, [w.lower() if k in chosen else None for k, w in enumerate(words)]))
    return found


def _trained(problem: Problem, options: Mapping[str, Any]) -> Problem:
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
