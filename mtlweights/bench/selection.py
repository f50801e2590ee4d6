"""What every arm chose from its trials, by validation scores alone; kept beside the results."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..files import atomic, schemas
from ..files.escapes import visible
from ..files.reading import read_json
from .budget import Arm
from .runspec import RunSpec, problem_key, spec_key

FILE = "selection.json"
_TRIAL = {"strategy": str, "settings": dict, "id": str, "score?": schemas.Maybe(schemas.NUMBER)}
_CHOICE: dict[str, Any] = {"problem": str, "budget": str, "arm": str, "only": schemas.Maybe(str)}
_CHOICE |= {"chosen": int, "trials": [_TRIAL], "seeds": [int]}
_CHOICE |= {"axis?": schemas.Maybe([str]), "on?": schemas.Maybe(str)}

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Choice:
    """An arm and the trial it chose.

    Attributes:
        trials: per configuration its strategy's spec, its settings without the seed, the id of its run, and
            the score: mean normalised validation score of the best epoch, None where the run failed, or
            there was one configuration only.
        chosen: number of the trial with the highest score, the first of equals.
        seeds: that judge it.
        axis, on: as `budget.Arm` has them.
    """

    problem: str
    budget: str
    arm: str
    only: str | None
    chosen: int
    trials: tuple[Mapping[str, Any], ...]
    seeds: tuple[int, ...]
    axis: tuple[str, ...] | None = None
    on: str | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """What there is one choice of."""
        axis = self.axis[0] if self.axis else ""
        return (repr(problem_key(self.problem)), self.budget, repr(spec_key(self.arm)), self.only or "", axis)

    @property
    def runs_on(self) -> str:
        """The problem of the runs that judge it."""
        return self.on or self.problem

    def label(self, result: Result) -> dict[str, Any]:
        """The result as one of this arm, on the problem without options of the arm's own."""
        along = {"axis": self.axis[0], "base": self.axis[1]} if self.axis else {}
        where = {"problem": self.problem} if self.on else {}
        return {**result, "arm": self.arm, "budget": self.budget, **along, **where}

    def is_of(self, result: Result) -> bool:
        """Whether the result is one that judges this choice."""
        own = self.trials[self.chosen]
        settings = {key: value for key, value in result["settings"].items() if key != "seed"}
        return bool(
            result["seed"] in self.seeds
            and result["only"] == self.only
            and settings == own["settings"]
            and spec_key(result["strategy"]) == spec_key(own["strategy"])
            and problem_key(result["problem"]) == problem_key(self.runs_on)
        )


def choose(arm: Arm, results: Mapping[str, Result]) -> Choice:
    """The arm's choice; ``results`` has those of its trials, by id, if there is more than one."""
    scores = [_score(results.get(run.id)) for run in arm.trials]
    best = max(range(len(scores)), key=lambda k: (-math.inf if scores[k] is None else scores[k], -k))
    trials = tuple(_trial(run, score) for run, score in zip(arm.trials, scores, strict=True))
    what = (arm.problem, arm.budget, arm.name, arm.only)
    return Choice(*what, best, trials, arm.seeds, arm.axis, arm.on)


def _score(result: Result | None) -> float | None:
    if result is None or result["status"] != "ok":
        return None
    row = next(row for row in result["history"] if row["epoch"] == result["best_epoch"])
    score = row["score"]
    return None if score is None or not math.isfinite(score) else float(score)


def _trial(run: RunSpec, score: float | None) -> dict[str, Any]:
    settings = {key: value for key, value in run.settings.said().items() if key != "seed"}
    return {"strategy": run.strategy, "settings": settings, "id": run.id, "score": score}


def keep(choices: Iterable[Choice], folder: str | Path) -> None:
    """Add choices to those of a results folder; one for the same arm takes the place of the old one, and has
    its seeds too if it is the same choice.

    Raises:
        ValueError: the file is there and holds no choices.
        OSError: the folder cannot be written.
    """
    kept: dict[tuple[str, ...], Choice] = {}
    for choice in (*read_choices(folder), *choices):
        before = kept.get(choice.key, choice)
        same = before.trials[before.chosen]["id"] == choice.trials[choice.chosen]["id"]
        seeds = dict.fromkeys([*(before.seeds if same else ()), *choice.seeds])
        kept[choice.key] = replace(choice, seeds=tuple(seeds))
    text = json.dumps([_plain(choice) for choice in kept.values()], indent=1)
    atomic.write(Path(folder) / FILE, f"{text}\n")


def _plain(choice: Choice) -> dict[str, Any]:
    said = asdict(choice)
    return {key: value for key, value in said.items() if value is not None or key not in ("axis", "on")}


def read_choices(folder: str | Path) -> list[Choice]:
    """What was chosen in a results folder, nothing if nothing was.

    Raises:
        ValueError: the file is there and holds no choices.
    """
    path = Path(folder) / FILE
    try:
        content = read_json(path)
        schemas.check(content, [_CHOICE], "the file")
        found = [Choice(**{**c, **_tuples(c)}) for c in content]
        for choice in found:
            if not 0 <= choice.chosen < len(choice.trials):
                raise ValueError(f"the choice of {choice.arm} is none of its trials")
            choice.key  # noqa: B018 (refuses what is no spec)
        return found
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, RecursionError) as error:
        reason = visible(str(getattr(error, "strerror", None) or error))
        raise ValueError(f"{path} holds no choices of a bench: {reason}") from None


def _tuples(said: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(said[key]) for key in ("trials", "seeds", "axis") if said.get(key) is not None}


def labelled(results: Sequence[Result], choices: Sequence[Choice]) -> list[Result]:
    """The results as arms of their budgets; those that judge none stay as they are, trials are left out.

    One that judges two arms is there twice, each with ``arm``, ``budget`` and the problem that they are
    compared on, without options of the arm's own; along an axis also with its name, ``axis``, and the arm
    that others are judged by, ``base``.
    """
    trials = {trial["id"] for choice in choices for trial in choice.trials}
    by_problem: dict[str, list[Choice]] = {}
    for choice in choices:
        by_problem.setdefault(repr(problem_key(choice.runs_on)), []).append(choice)
    out: list[Result] = []
    for result in results:
        own = [c for c in by_problem.get(repr(problem_key(result["problem"])), ()) if c.is_of(result)]
        out += [choice.label(result) for choice in own]
        if not own and result["id"] not in trials and (result["test"] or result["status"] != "ok"):
            out.append(result)
    return out
