"""Training stage by stage: the tasks of a cascade are taken up one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..problems import Problem


class Stages:
    """Which tasks are trained in an epoch.

    Of T tasks in the order of the cascade, the first one alone is trained in the first T-th of the epochs,
    the first two in the second, and so on: a head is taken up once those it reads have learnt, and the tasks
    before go on, so that the encoder they share forgets none. It is one run of `mtlweights.train.fit`, with
    one balancer, which sees the tasks at hand; the best epoch is one of the last stage.

    Raises:
        ValueError: fewer epochs than tasks.
    """

    def __init__(self, problem: Problem, epochs: int) -> None:
        self.order, self.epochs = problem.cascade, epochs
        if epochs < len(self.order):
            raise ValueError(
                f"training=staged takes an epoch at least for each of {len(self.order)} tasks, found "
                f"epochs={epochs}: give more, or training=cascaded"
            )

    def number(self, epoch: int) -> int:
        """The stage of an epoch, both from 1."""
        return 1 + (epoch - 1) * len(self.order) // self.epochs

    def tasks(self, epoch: int) -> tuple[str, ...]:
        """The tasks that are trained in it."""
        return self.order[: self.number(epoch)]

    def begins(self, epoch: int) -> bool:
        """Whether a stage begins with the epoch."""
        return epoch == 1 or self.number(epoch) > self.number(epoch - 1)

    def last(self, epoch: int) -> bool:
        """Whether the epoch is of the last stage."""
        return self.number(epoch) == len(self.order)
