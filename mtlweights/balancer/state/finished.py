"""Tasks that are done: their losses are left out, and what they alone reached is frozen."""

from __future__ import annotations

from collections.abc import Iterable

from ...gradients.leaves import Known
from ...gradients.shared_parameters import Sharing
from ...specs import did_you_mean
from ...strategies.hyperparameters import shown
from ..calls import Losses


class Finished:
    """The tasks that have left.

    A parameter is frozen (no gradient wanted, none left there) once all tasks that have reached it are done
    and every other task has been met: before that a shared one might be taken for a head.

    Args:
        sharing: Which tasks have reached which parameters.
    """

    def __init__(self, sharing: Sharing) -> None:
        self.sharing, self.tasks = sharing, sharing.tasks
        self.done = 0  #: bit i: task i
        self.frozen: list[Known] = []
        self._settled = True
        self.watched = False  #: learn who reaches what from the start, for a strategy that does not ask

    @property
    def names(self) -> list[str]:
        """In the order of the tasks."""
        return [task for i, task in enumerate(self.tasks) if self.done >> i & 1]

    def add(self, task: str) -> None:
        """A task is done.

        Raises:
            ValueError: it is unknown, or the last one that is left, or the model is sharded (FSDP2).
        """
        if task not in self.tasks:
            known = ", ".join(self.tasks)
            raise ValueError(
                f"{shown(task)} is not one of the balancer's tasks{did_you_mean(task, self.tasks)}. "
                f"Tasks: {known}."
            )
        done = self.done | 1 << self.tasks.index(task)
        if done.bit_count() == len(self.tasks):
            raise ValueError(f"{task!r} is the last task that is left: end the training instead.")
        if self.sharing.sharded:
            raise ValueError("finish() does not go with FSDP2, which cannot freeze a part of its shards.")
        self.done, self._settled = done, False
        self.freeze()

    def load(self, names: Iterable[str]) -> None:
        """The tasks of a saved state, and no others."""
        for known in self.frozen:
            if (param := known.param()) is not None:
                param.requires_grad_(True)
        self.frozen, self.done = [], sum(1 << self.tasks.index(name) for name in names)
        self._settled = not self.done
        self.sharing.everything()  # meets the model's parameters, by whose names the record was saved
        self.freeze()

    def freeze(self) -> None:
        """Freeze what can be told by now."""
        if self._settled or (self.done | self._met()).bit_count() < len(self.tasks):
            return
        self._settled = True
        for known in list(self.sharing.record.entries.values()):
            param = known.param()
            own = param is not None and known.own and param.requires_grad
            if param is not None and own and known.tasks and not known.tasks & ~self.done:
                param.requires_grad_(False)
                param.grad = None  # an optimizer moves what has one, by momentum and decay
                self.frozen.append(known)

    def _met(self) -> int:
        """The tasks that have reached a parameter."""
        met = 0
        for known in list(self.sharing.record.entries.values()):
            met |= known.tasks
        return met

    def without(self, losses: Losses, alone: bool = False) -> Losses:
        """The losses of tasks that go on.

        ``alone``: nobody else reads who reaches what, on this rank or another, so it is read here if need be.

        Raises:
            ValueError: there is none.
        """
        if alone and (self.watched or not self._settled) and self._met().bit_count() < len(self.tasks):
            self.sharing.register(losses.present, losses.values)
        if not self.done:
            return losses
        self.freeze()
        left = losses.only([i for i in losses.present if not self.done >> i & 1])
        if not left.present:
            names = ", ".join(self.tasks[i] for i in losses.present)
            raise ValueError(f"All losses given are of finished tasks ({names}): leave this batch out.")
        return left
