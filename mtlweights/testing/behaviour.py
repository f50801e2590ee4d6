"""What a strategy does step after step, whatever its mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..strategies import ALL, Strategy
from .cases import degenerate, ordinary
from .compare import frozen, same
from .harness import Moment, Result, Stage
from .subject import Subject

#: attributes that nn.Module and the Balancer set
_NOT_STATE = {*vars(nn.Module()), "rows", "sizes", "seed"}


def finite(subject: Subject) -> None:
    """Finite on zero, rank-one, opposed and one-zero-row gradients, on zero losses, and after them."""
    for n_tasks in subject.sizes:
        for moment in degenerate(n_tasks):
            stage = Stage(subject.make(n_tasks), torch.float32)
            for _ in range(2):
                _check_finite(stage, stage.step(moment), moment)
            after = ordinary(n_tasks, 0)
            _check_finite(stage, stage.step(after), f"{after}, after {moment}")


def _check_finite(stage: Stage, result: Result, moment: Moment | str) -> None:
    assert np.isfinite(result.update).all(), f"{moment}: the update is not finite"
    for weights in result.weights:
        assert np.isfinite(weights).all(), f"{moment}: weights are not finite: {weights}"
    for name, param in stage.strategy.named_parameters():
        assert torch.isfinite(param).all(), f"{moment}: the learned {name!r} is not finite"


def signed_weights(subject: Subject) -> None:
    """No weight is negative, unless ``signed_weights`` says that one may be."""
    for n_tasks in [] if subject.cls.signed_weights else subject.sizes:
        stage = Stage(subject.make(n_tasks))
        for moment in (ordinary(n_tasks, n) for n in range(8)):
            for weights in stage.step(moment).weights:
                assert weights.min() >= -1e-9 * np.abs(weights).max(), (
                    f"{moment}: a weight is negative: {weights.min():.3g}; set signed_weights = True"
                )


def inputs_unchanged(subject: Subject) -> None:
    """No input is changed in place: losses, Gramian, Jacobian, rows, ``present``, and those of the hooks."""
    for n_tasks in subject.few():
        stage = Stage(subject.make(n_tasks))
        for present in (ALL, np.arange(n_tasks)[::-1].copy()):
            for n in range(2):
                stage.step(ordinary(n_tasks, n, present))
                _unchanged(type(stage.strategy).__name__, stage.given)
        moment = ordinary(n_tasks, 3)
        mean_losses, scores = moment.losses.copy(), moment.losses / 3
        losses = torch.tensor(moment.losses)
        hooked = {"mean_losses": mean_losses, "scores": scores, "losses after the step": losses}
        before = frozen(hooked)
        stage.strategy.end_epoch(mean_losses, scores)
        stage.strategy.after_step(losses)
        stage.step(ordinary(n_tasks, 4))
        _unchanged("a hook", {key: (hooked[key], before[key]) for key in hooked})


def _unchanged(who: str, given: dict[str, tuple[Any, Any]]) -> None:
    for key, (now, before) in given.items():
        assert same(frozen(now), before), f"{who} changed its input {key!r} in place"


def repeatable(subject: Subject) -> None:
    """The same seed and step give the same weights, however often they are asked for."""
    for n_tasks in subject.sizes_from(2)[:2]:
        one, two = (Stage(subject.make(n_tasks, seed=3)) for _ in range(2))
        for n in range(4):
            moment = ordinary(n_tasks, n)
            first = one.propose(moment).update
            one.state.drop()
            again, other = one.step(moment).update, two.step(moment).update
            assert same(again, first), (
                f"{moment}: asked twice it answers differently: draws should depend on seed and step "
                "alone, and state be in buffers"
            )
            assert same(other, first), f"{moment}: two instances of the same seed answer differently"


def state_in_buffers(subject: Subject) -> None:
    """All that a step changes is in buffers and parameters made in ``__init__``."""
    for n_tasks in subject.few():
        stage = Stage(subject.make(n_tasks))
        strategy = stage.strategy
        plain, held = _plain(strategy), _tensors(strategy)
        for n in range(3):
            stage.step(ordinary(n_tasks, n))
        strategy.end_epoch(np.ones(n_tasks), np.full(n_tasks, 0.5))
        for key, value in _plain(strategy).items():
            assert key in plain and same(value, plain[key]), (
                f"attribute {key!r} changed in a step, but no state_dict holds it: make it a buffer"
            )
        found = _tensors(strategy)
        later = ", ".join(found.keys() - held.keys())
        assert not later, f"state made after __init__, which no checkpoint can restore: {later}"


def _plain(strategy: Strategy) -> dict[str, Any]:
    return {key: frozen(value) for key, value in vars(strategy).items() if key not in _NOT_STATE}


def _tensors(strategy: Strategy) -> dict[str, torch.Tensor]:
    return {**dict(strategy.named_buffers()), **dict(strategy.named_parameters())}


def absent_tasks(subject: Subject) -> None:
    """With any one task missing the result is finite, and that task's rows of state do not move."""
    for n_tasks in [n for n in subject.sizes_from(2) if n <= 10]:
        for task in range(n_tasks):
            stage = Stage(subject.make(n_tasks))
            for n in range(4):
                stage.step(ordinary(n_tasks, n))
            before = stage.snapshot()
            moment = ordinary(n_tasks, 5, np.delete(np.arange(n_tasks), task))
            result = stage.step(moment)
            stage.strategy.after_step(torch.tensor(moment.losses), moment.present)
            assert np.isfinite(result.update).all(), f"{moment}: the update is not finite"
            _check_row(moment, before, stage.snapshot(), task, n_tasks)
            _unseen(stage, moment, task)


def _check_row(
    moment: Moment, before: dict[str, Any], after: dict[str, Any], task: int, n_tasks: int
) -> None:
    for key, value in after.items():
        if value.shape[:1] == (n_tasks,):
            kept = same(value[task], before[key][task])
            if value.shape[:2] == (n_tasks, n_tasks) and not key.startswith("rows."):
                kept = kept and same(value[:, task], before[key][:, task])
            assert kept, f"{moment}: state {key!r} of the absent task {task} moved"


def _unseen(stage: Stage, moment: Moment, task: int) -> None:
    """An epoch without the task, whose loss and score are then NaN."""
    news = np.ones(stage.strategy.n_tasks)
    news[task] = np.nan
    stage.strategy.end_epoch(news, news / 2)
    stage.strategy.end_epoch(news, None)
    result = stage.step(ordinary(stage.strategy.n_tasks, 6))
    assert np.isfinite(result.update).all(), (
        f"{moment}: not finite after an end_epoch with NaN for task {task}"
    )


def order_of_present(subject: Subject) -> None:
    """Row i belongs to task ``present[i]``; ALL is all tasks in their order."""
    for n_tasks in subject.sizes_from(2)[:2]:
        every = np.arange(n_tasks)
        named, none = ordinary(n_tasks, 4, every), ordinary(n_tasks, 4)
        assert _alike(subject, n_tasks, named, none), f"present = ALL and {every} give another update"
        if n_tasks > 2:
            # Two of them: among more, orders drawn at random may go another way.
            one, other = np.array([n_tasks - 1, 0]), np.array([0, n_tasks - 1])
            alike = _alike(subject, n_tasks, ordinary(n_tasks, 4, one), ordinary(n_tasks, 4, other))
            assert alike, (
                f"T = {n_tasks}: present = {one} and {other}, with the same rows, give another update"
            )


def _alike(subject: Subject, n_tasks: int, one: Moment, other: Moment) -> bool:
    """Whether two moments give the same update after the same training."""
    updates = []
    for moment in (one, other):
        stage = Stage(subject.make(n_tasks))
        for n in range(4):
            stage.step(ordinary(n_tasks, n))
        updates.append(stage.step(moment).update)
    return bool(np.linalg.norm(updates[0] - updates[1]) <= 1e-6 * np.linalg.norm(updates[1]))
