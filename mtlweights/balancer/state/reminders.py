"""What a balancer says, once, where a loop leaves out something that its strategy cannot work without."""

from __future__ import annotations

import warnings

from torch import Tensor

from ...strategies import JacobianStrategy, LossStrategy, Strategy
from ..records import Step

PATIENCE = 50  # training calls after which something that has not come is missed


class Reminders:
    """Counts calls, and warns.

    Args:
        strategy: Whose needs these are.
    """

    def __init__(self, strategy: Strategy) -> None:
        self.strategy, self.name = strategy, type(strategy).__name__
        self._owed, self._calls = set(strategy.needs), 0
        self._by_scores = "end_epoch" in strategy.needs and strategy.family == "validation"
        remembers = isinstance(strategy, JacobianStrategy) and bool(strategy.memory)
        # tasks, in one step
        self._met = strategy.n_tasks == 1 or isinstance(strategy, LossStrategy) or remembers
        self._evaluated = False
        self.counts = True  #: there is something that may yet be missed

    def called(self, last: Step | None) -> None:
        """A training call is made; ``last`` is the step before it."""
        self._calls += 1
        self._met = self._met or (last is not None and len(last.present) > 1)
        self.counts = self._calls < PATIENCE and (bool(self._owed) or not self._met)
        if self._calls != PATIENCE:
            return
        self._ask()
        if not self._met and last is not None:
            warnings.warn(
                f"{self.name} weighs the gradients of several tasks against each other, and in {PATIENCE} "
                "calls each step had a single task, which it leaves as it is: with one task per batch, build "
                "the balancer with accumulation='window' and put batches of all tasks into one step, or take "
                "a strategy that remembers the others, m_config or running_pcgrad.",
                stacklevel=5,
            )

    def fed(self, method: str) -> None:
        """The balancer's ``method`` was called, or will be by whoever runs the loop."""
        self._owed.discard(method)

    def one_at_a_time(self) -> None:
        """Whoever runs the loop means steps of a single task."""
        self._met = True

    def epoch_ended(self, scored: bool) -> None:
        """An epoch ended, with or without validation scores."""
        self.fed("end_epoch")
        if self._calls:
            self._ask()
        if self._by_scores and not scored:
            self._by_scores = False
            warnings.warn(
                f"{self.name} makes its weights from validation scores, and an epoch ended without any: call "
                "balancer.end_epoch({task: score}), or give scores= to the Trainer or the BalancerCallback.",
                stacklevel=4,
            )

    def evaluating(self, total: Tensor) -> None:
        """The plain sum [] was given because the model is in evaluation mode."""
        if total.requires_grad and not self._evaluated:
            total.register_hook(self._trained)

    def _trained(self, gradient: Tensor) -> None:
        if not self._evaluated:
            self._evaluated = True
            warnings.warn(
                "backward() with the model in evaluation mode: the losses were summed as they are, without "
                f"{self.name}. Call model.train(), then eval() on the layers that should stay in that mode, "
                "or build the Balancer without model=.",
                stacklevel=2,
            )

    def _ask(self) -> None:
        owed, self._owed = self._owed, set()
        if owed:
            calls = ", ".join(f"balancer.{name}()" for name in sorted(owed))
            warnings.warn(
                f"{self.name} needs {calls}, not called in {self._calls} steps: until then its weights do "
                "not change.",
                stacklevel=5,
            )
