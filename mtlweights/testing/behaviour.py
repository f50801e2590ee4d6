"""What a strategy does step after step, whatever its mathematics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from ..strategies import ALL, Strategy
from .cases import degenerate, ordinary
from .compare import frozen, same
from .harness import Case, Harness, Result
from .subject import Subject

#: attributes that nn.Module and the Balancer set
_NOT_STATE = {*vars(nn.Module()), "rows", "sizes", "seed"}


def finite(subject: Subject) -> None:
    """Finite on zero, rank-one, opposed and one-zero-row gradients, on zero losses, and after them."""
    for n_tasks in subject.sizes:
        for case in degenerate(n_tasks):
            harness = Harness(subject.make(n_tasks), torch.float32)
            for _ in range(2):
                _check_finite(harness, harness.step(case), case)
            after = ordinary(n_tasks, 0)
            _check_finite(harness, harness.step(after), f"{after}, after {case}")


def _check_finite(harness: Harness, result: Result, case: Case | str) -> None:
    assert np.isfinite(result.update).all(), f"{case}: the update is not finite"
    for weights in result.weights:
        assert np.isfinite(weights).all(), f"{case}: weights are not finite: {weights}"
    for name, param in harness.strategy.named_parameters():
        assert torch.isfinite(param).all(), f"{case}: the learned {name!r} is not finite"


def signed_weights(subject: Subject) -> None:
    """No weight is negative, unless ``signed_weights`` says that one may be."""
    for n_tasks in [] if subject.cls.signed_weights else subject.sizes:
        harness = Harness(subject.make(n_tasks))
        for case in (ordinary(n_tasks, n) for n in range(8)):
            for weights in harness.step(case).weights:
                assert weights.min() >= -1e-9 * np.abs(weights).max(), (
                    f"{case}: a weight is negative: {weights.min():.3g}; set signed_weights = True"
                )


def inputs_unchanged(subject: Subject) -> None:
    """No input is changed in place: losses, Gramian, Jacobian, rows, ``present``, and those of the hooks."""
    for n_tasks in subject.few():
        harness = Harness(subject.make(n_tasks))
        for present in (ALL, np.arange(max(n_tasks - 1, 1))[::-1].copy()):
            for n in range(2):
                harness.step(ordinary(n_tasks, n, present))
                _unchanged(type(harness.strategy).__name__, harness.given)
        case = ordinary(n_tasks, 3)
        mean_losses, scores = case.losses.copy(), case.losses / 3
        losses = torch.tensor(case.losses)
        hooked = {"mean_losses": mean_losses, "scores": scores, "losses after the step": losses}
        before = frozen(hooked)
        harness.strategy.end_epoch(mean_losses, scores)
        harness.strategy.after_step(losses)
        harness.step(ordinary(n_tasks, 4))
        _unchanged("a hook", {key: (hooked[key], before[key]) for key in hooked})


def _unchanged(who: str, given: dict[str, tuple[Any, Any]]) -> None:
    for key, (now, before) in given.items():
        assert same(frozen(now), before), f"{who} changed its input {key!r} in place"


def repeatable(subject: Subject) -> None:
    """The same seed and step give the same weights, however often they are asked for."""
    for n_tasks in subject.sizes_from(2)[:2]:
        one, two = (Harness(subject.make(n_tasks, seed=3)) for _ in range(2))
        for n in range(4):
            case = ordinary(n_tasks, n)
            first = one.propose(case).update
            one.state.drop()
            again, other = one.step(case).update, two.step(case).update
            assert same(again, first), (
                f"{case}: asked twice it answers differently: draws should depend on seed and step "
                "alone, and state be in buffers"
            )
            assert same(other, first), f"{case}: two instances of the same seed answer differently"


def state_in_buffers(subject: Subject) -> None:
    """All that a step changes is in buffers and parameters made in ``__init__``."""
    for n_tasks in subject.few():
        harness = Harness(subject.make(n_tasks))
        strategy = harness.strategy
        plain, held = _plain(strategy), _tensors(strategy)
        for n in range(3):
            harness.step(ordinary(n_tasks, n))
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
            harness = Harness(subject.make(n_tasks))
            for n in range(4):
                harness.step(ordinary(n_tasks, n))
            before = harness.snapshot()
            case = ordinary(n_tasks, 5, np.delete(np.arange(n_tasks), task))
            result = harness.step(case)
            harness.strategy.after_step(torch.tensor(case.losses), case.present)
            assert np.isfinite(result.update).all(), f"{case}: the update is not finite"
            _check_row(case, before, harness.snapshot(), task, n_tasks)
            _unseen(harness, case, task)


def _check_row(case: Case, before: dict[str, Any], after: dict[str, Any], task: int, n_tasks: int) -> None:
    for key, value in after.items():
        if value.shape[:1] == (n_tasks,):
            kept = same(value[task], before[key][task])
            if value.shape[:2] == (n_tasks, n_tasks) and not key.startswith("rows."):
                kept = kept and same(value[:, task], before[key][:, task])
            assert kept, f"{case}: state {key!r} of the absent task {task} moved"


def _unseen(harness: Harness, case: Case, task: int) -> None:
    """An epoch without the task, whose loss and score are then NaN."""
    news = np.ones(harness.strategy.n_tasks)
    news[task] = np.nan
    harness.strategy.end_epoch(news, news / 2)
    harness.strategy.end_epoch(news, None)
    result = harness.step(ordinary(harness.strategy.n_tasks, 6))
    assert np.isfinite(result.update).all(), f"{case}: not finite after an end_epoch with NaN for task {task}"


def order_of_present(subject: Subject) -> None:
    """Row i belongs to task ``present[i]``."""
    for n_tasks in subject.sizes_from(3)[:2]:
        # Two of them: among more, orders drawn at random may go another way.
        one, other = np.array([n_tasks - 1, 0]), np.array([0, n_tasks - 1])
        alike = _alike(subject, n_tasks, ordinary(n_tasks, 4, one), ordinary(n_tasks, 4, other))
        assert alike, f"T = {n_tasks}: present = {one} and {other}, with the same rows, give another update"


def _alike(subject: Subject, n_tasks: int, one: Case, other: Case) -> bool:
    """Whether two cases give the same update after the same training."""
    updates = []
    for case in (one, other):
        harness = Harness(subject.make(n_tasks))
        for n in range(4):
            harness.step(ordinary(n_tasks, n))
        updates.append(harness.step(case).update)
    return bool(np.linalg.norm(updates[0] - updates[1]) <= 1e-6 * np.linalg.norm(updates[1]))
