"""A strategy in a real Balancer, with a small model and an optimizer."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..balancer.balancer import Balancer
from .compare import frozen, same
from .subject import Subject

STEPS = 5  #: before and after the checkpoint; an epoch has three


class Training:
    """Two hidden layers shared by T linear heads, plain SGD, and a Balancer.

    Args:
        subject: The strategy.
        n_tasks: T.
        explicit: Call ``balancer.backward(losses)`` instead of ``balancer(losses).backward()``.
    """

    def __init__(self, subject: Subject, n_tasks: int, *, explicit: bool = False) -> None:
        generator = torch.Generator().manual_seed(0)
        self.tasks = [f"task{i}" for i in range(n_tasks)]
        trunk = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh())
        self.model = nn.ModuleList([trunk, *(nn.Linear(6, 1) for _ in self.tasks)])
        with torch.no_grad():
            for param in self.model.parameters():
                param.copy_(torch.randn(param.shape, generator=generator) / 3)
        strategy = subject.make(n_tasks)
        self.batches = strategy.batches
        self.balancer = Balancer(
            strategy,
            self.tasks,
            self.model,
            seed=3,
            accumulation_steps=self.batches if self.batches > 1 else None,
        )
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.01)
        self.balancer.attach(self.optimizer)
        self.explicit = explicit

    def losses(self, n: int, absent: Sequence[int] = ()) -> dict[str, Tensor]:
        """Task -> mean squared error on the n-th batch, of very different sizes."""
        generator = torch.Generator().manual_seed(n)
        x = torch.randn(8, 4, generator=generator)
        y = torch.randn(len(self.tasks), 8, generator=generator)
        trunk, *heads = self.model
        hidden = trunk(x)
        found = {}
        for i, (task, head, goal) in enumerate(zip(self.tasks, heads, y, strict=True)):
            if i not in absent:
                found[task] = 3.0 ** (i % 4) * (head(hidden)[:, 0] - goal).square().mean()
        return found

    def backward(self, n: int, absent: Sequence[int] = (), scale: float = 1.0) -> None:
        """The n-th step's gradients."""
        self.optimizer.zero_grad()
        self.balancer.validate(partial(self.losses, 1000 + n))
        for batch in range(self.batches):
            losses = {k: scale * v for k, v in self.losses(10 * n + batch, absent).items()}
            if self.explicit:
                self.balancer.backward(losses)
            else:
                self.balancer(losses).backward()

    def step(self, n: int) -> None:
        """The n-th step, every fourth without the first task (if there are others)."""
        absent = [0] if n % 4 == 3 and len(self.tasks) > 1 else []
        self.backward(n, absent)
        self.optimizer.step()
        self.balancer.after_step(partial(self.losses, 10 * n, absent))
        if n % 3 == 2:
            self.balancer.end_epoch({task: 0.1 * (i + n % 5) for i, task in enumerate(self.tasks)})

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "balancer": self.balancer.state_dict(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Restore a checkpoint."""
        self.model.load_state_dict(state["model"])
        self.balancer.load_state_dict(state["balancer"])
        self.optimizer.load_state_dict(state["optimizer"])


def resume(subject: Subject) -> None:
    """A checkpoint in mid-training, loaded into a fresh Balancer, continues bit for bit."""
    for n_tasks in subject.few():
        one, other = Training(subject, n_tasks), Training(subject, n_tasks)
        for n in range(STEPS):
            one.step(n)
        file = io.BytesIO()
        torch.save(one.state(), file)
        file.seek(0)
        try:
            other.load(torch.load(file, weights_only=True))
        except Exception as error:
            raise AssertionError(f"T = {n_tasks}: the state does not load: {error}") from error
        for n in range(STEPS, 2 * STEPS):
            one.step(n)
            other.step(n)
        _check_same(
            one, other, f"T = {n_tasks}, {STEPS} steps after a checkpoint", "uninterrupted", "resumed"
        )


def skipped_step(subject: Subject) -> None:
    """A backward whose optimizer step is skipped, finite or not, leaves no trace."""
    for n_tasks in subject.few():
        one, other = Training(subject, n_tasks), Training(subject, n_tasks)
        for n in range(STEPS):
            one.step(n)
            other.step(n)
            if n in (1, 3):
                other.backward(50 + n)  # as if a GradScaler had skipped it
                other.backward(60 + n, scale=float("inf"))
        _check_same(one, other, f"T = {n_tasks}", "without skipped steps", "with some")


def both_calls(subject: Subject) -> None:
    """``balancer(losses).backward()`` and ``balancer.backward(losses)`` leave the same gradients."""
    for n_tasks in subject.few():
        one, other = Training(subject, n_tasks), Training(subject, n_tasks, explicit=True)
        for n in range(STEPS):
            one.step(n)
            other.step(n)
            for (name, a), b in zip(one.model.named_parameters(), other.model.parameters(), strict=True):
                assert same(frozen(a.grad), frozen(b.grad)), (
                    f"T = {n_tasks}, step {n + 1}: .grad of {name} differs"
                )


def _check_same(one: Training, other: Training, where: str, first: str, second: str) -> None:
    """AssertionError at the first tensor in which two checkpoints differ."""
    a, b = _flat(frozen(one.state())), _flat(frozen(other.state()))
    for key, value in a.items():
        assert key in b and same(value, b[key]), (
            f"{where}: {key} is {_brief(value)} {first}, {_brief(b.get(key))} {second}: is all state in "
            "buffers, and what is drawn a function of (seed, step)?"
        )


def _flat(value: Any, key: str = "") -> dict[str, Any]:
    """The tensors of nested dicts and lists by dotted name, the balancer's first."""
    items = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    )
    if items is None:
        return {key: value}
    parts = [_flat(item, f"{key}.{name}" if key else str(name)) for name, item in items]
    return {name: leaf for part in parts for name, leaf in part.items()}


def _brief(value: Any) -> Any:
    """A value for a message: of a large tensor its size and norm."""
    if not isinstance(value, torch.Tensor) or value.numel() <= 4:
        return value
    return f"{value.numel()} numbers of norm {float(value.double().norm()):.9g}"
