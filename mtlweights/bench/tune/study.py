"""A study: joined by any number of workers, each of which takes trials until there are enough in all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from ...files.escapes import visible
from .heartbeat import RETRY_OF, TRIES, Watch, beating, hand_on
from .objective import Aim
from .sampling import ARM, FIRST, Seeded, make_pruner
from .space import Space
from .storage import is_of_storage

IDENTITY = "mtlweights"  #: user attribute of a study: what its trials have in common
SURPLUS = "surplus"  #: of a trial that was begun when there were enough
LONGEST_PAUSE = 5.0  #: seconds between two looks at the trials of others

Values = float | list[float]


@dataclass(frozen=True)
class Search:
    """How the space is searched: names of `sampling.SAMPLERS` and `sampling.PRUNERS`, and a seed."""

    sampler: str = "tpe"
    pruner: str = "median"
    seed: int = 0


def join(
    storage: Any, name: str, search: Search, directions: int, identity: Mapping[str, Any]
) -> optuna.Study:
    """The study of this name, made if need be, with ``directions`` objectives to maximise.

    Raises:
        ValueError: the storage's study of this name is another one's: of another problem, space or aim.
    """
    how: dict[str, Any] = {
        "sampler": Seeded(search.sampler, search.seed),
        "pruner": make_pruner(search.pruner),
    }
    asked = json.loads(json.dumps(identity, sort_keys=True))
    try:
        study = optuna.create_study(
            storage=storage, study_name=name, directions=["maximize"] * directions, **how
        )
        study.set_user_attr(IDENTITY, asked)
        return study
    except optuna.exceptions.DuplicatedStudyError:
        study = optuna.load_study(storage=storage, study_name=name, **how)
    found = study.user_attrs.get(IDENTITY)
    for _ in range(20):  # whoever made it is about to say so
        if found is None and not study.get_trials(deepcopy=False):
            time.sleep(0.1)
            found = study.user_attrs.get(IDENTITY)
    if not isinstance(found, dict):
        raise ValueError(f"study {name!r} there was not made by mtlweights tune: give another --study.")
    other = [key for key in {**asked, **found} if asked.get(key) != found.get(key)]
    if other:
        differ = "; ".join(_differ(key, found.get(key), asked.get(key)) for key in sorted(other))
        known = visible(f"study {name!r} is of another search ({differ})")
        raise ValueError(f"{known}: give another --study.")
    return study


def identity_of(space: Space, aim: Aim) -> dict[str, Any]:
    """What all workers of a study must agree on."""
    ranges = {"loop": space.loop, "model": space.model, **space.strategies}
    return {
        "problem": space.problem,
        "data": space.data,
        "settings": space.settings.said(),
        "space": {where: {k: repr(r) for k, r in found.items()} for where, found in ranges.items()},
        "aim": {"pareto": aim.pareto, "limits": dict(aim.limits or {})},
    }


def enqueue_first(study: optuna.Study, space: Space, trials: int) -> None:
    """Queue every strategy's defaults and equal weights, as far as ``trials`` go, if not yet there."""
    for arm, parameters in space.first()[:trials]:
        attributes = {FIRST: True} if arm is None else {FIRST: True, ARM: arm}
        study.enqueue_trial(parameters, attributes, skip_if_exists=True)


def work(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], Values],
    trials: int,
    *,
    interval: float = 30.0,
    say: Callable[[str], None] = print,
) -> None:
    """Run trials until the study has ``trials`` in all, those of other workers counted, and all have ended.

    A trial that raises is failed and counted. A trial of a worker that is gone is queued again, `MOST_TRIES`
    times at most. Whatever ends this call otherwise (Ctrl-C, a full disk) hands its trial on.
    """
    watch, began, before = Watch(interval), time.monotonic(), -1
    while True:
        known = study.get_trials(deepcopy=False)
        for number in watch.recover(study, known):
            say(f"trial {number}: its worker is gone; it is queued again")
            known = study.get_trials(deepcopy=False)
        slots = slots_of(known)[:trials]
        ended = [slot for slot in slots if slot.state.is_finished()]
        if len(ended) >= trials:
            return
        before = len(ended) if before < 0 else before
        if len(slots) == trials and not any(slot.state == TrialState.WAITING for slot in slots):
            time.sleep(min(interval, LONGEST_PAUSE))
            continue
        trial = study.ask()
        if _is_surplus(study, trial, trials):
            trial.set_user_attr(SURPLUS, True)
            study.tell(trial, state=TrialState.FAIL)
            continue
        _run(study, trial, objective, interval, partial(_say_with_time, say, study, trials, before, began))


def _say_with_time(
    say: Callable[[str], None], study: optuna.Study, trials: int, before: int, began: float, line: str
) -> None:
    """A line, and how long it takes if all workers go on as since ``began``, when ``before`` had ended."""
    ended = sum(slot.state.is_finished() for slot in slots_of(study.get_trials(deepcopy=False))[:trials])
    left = (trials - ended) * (time.monotonic() - began) / max(ended - before, 1)
    told = f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
    say(line + (told if ended > before and left >= 5 else ""))


def slots_of(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    """The trials that count, in order; one that was handed on as the last that went on with it."""
    by_original: dict[int, FrozenTrial] = {}
    original: dict[int, int] = {}
    for trial in trials:
        if trial.user_attrs.get(SURPLUS):
            continue
        before = trial.user_attrs.get(RETRY_OF)
        original[trial.number] = original.get(before, before) if before is not None else trial.number
        by_original[original[trial.number]] = trial
    return [by_original[number] for number in sorted(by_original)]


def _is_surplus(study: optuna.Study, trial: optuna.Trial, trials: int) -> bool:
    """Whether others began enough trials at the same moment; numbers order them."""
    if RETRY_OF in trial.user_attrs:
        return False
    before = [t for t in study.get_trials(deepcopy=False) if t.number < trial.number]
    return len(slots_of(before)) >= trials


def _run(
    study: optuna.Study,
    trial: optuna.Trial,
    objective: Callable[[optuna.Trial], Values],
    interval: float,
    say: Callable[[str], None],
) -> None:
    """One trial, told to the study however it ends."""
    state, values = TrialState.COMPLETE, None
    try:
        with beating(trial, interval):
            values = objective(trial)
    except optuna.TrialPruned:
        state = TrialState.PRUNED
    except BaseException as error:
        if not isinstance(error, Exception) or is_of_storage(error):
            with suppress(Exception):  # no storage: the silence tells
                hand_on(study, trial, again=True)
            raise
        state = TrialState.FAIL
        trial.set_user_attr("error", f"{type(error).__name__}: {error}"[:500])
    try:
        study.tell(trial, values, state)
    except ValueError:
        if _state(study, trial) == TrialState.RUNNING:
            raise
        say(f"trial {trial.number} was taken for dead, and is another worker's by now")
        return
    say(_line(study, trial.number))


def _state(study: optuna.Study, trial: optuna.Trial) -> TrialState:
    return study.get_trials(deepcopy=False)[trial.number].state


def _line(study: optuna.Study, number: int) -> str:
    """A trial in a line."""
    trial = study.get_trials(deepcopy=False)[number]
    run = trial.user_attrs.get("run", {})
    value = {
        TrialState.COMPLETE: ", ".join(f"{value:+.4f}" for value in trial.values or ()),
        TrialState.PRUNED: f"pruned after {len(trial.intermediate_values)} epochs",
        TrialState.FAIL: f"failed: {trial.user_attrs.get('error')}",
    }[trial.state]
    diverged = " (diverged)" if trial.user_attrs.get("diverged") else ""
    tries = f", try {trial.user_attrs[TRIES]}" if TRIES in trial.user_attrs else ""
    return visible(f"trial {number}{tries}: {run.get('strategy', '')} {value}{diverged}")


def _differ(key: str, found: Any, asked: Any) -> str:
    if isinstance(found, dict) and isinstance(asked, dict):
        first = next(k for k in {**found, **asked} if found.get(k) != asked.get(k))
        return _differ(f"{key}.{first}", found.get(first), asked.get(first))
    return f"{key}: {_short(found)} there, {_short(asked)} here"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
