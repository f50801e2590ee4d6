"""The best of a study as an arm of a bench: its configuration, judged on the bench's own seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..train import Settings
from .budget import TRIAL, Arm, seed_of
from .runspec import RunSpec, problem_key, slug

ENDINGS = (".yaml", ".yml")  #: in the place of a strategy: the file of a study's best
TUNED = ("lr", "weight_decay", "schedule", "warmup", "batch_size", "clip", "accumulate")  #: what it brings


@dataclass(frozen=True)
class Best:
    """What a study found, as its ``best.yaml`` has it.

    Attributes:
        study: the study's name.
        on: spec of the problem that it was on.
        trials: how many it had.
        problem: the problem's spec with the model's options that were found.
        strategy: the spec.
        settings: all of them, without the seed.
    """

    study: str
    on: str
    trials: int
    problem: str
    strategy: str
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The arm's name, which says how much was tried for it."""
        return f"best of {slug(self.study)} ({self.trials} trials)"

    def is_on(self, problem: str) -> bool:
        """Whether the study was on this problem, whatever the spelling."""
        return problem_key(self.on) == problem_key(problem)

    def arm(self, problem: str, budget: str, settings: Settings, seeds: tuple[int, ...]) -> Arm:
        """The arm: one configuration, with nothing left to choose.

        What decides how long and on what is trained (epochs, patience, device, precision) is the bench's own.

        Raises:
            ValueError: the study trained for other epochs than the bench does.
        """
        own = self.settings.get("epochs", settings.epochs)
        if own != settings.epochs:
            raise ValueError(
                f"{self.name} was found with {own} epochs, and on {problem} this bench trains "
                f"{settings.epochs}: who trains longer wins by that. Give both the same: --epochs {own}, or "
                "--fix epochs=N in mtlweights tune."
            )
        tuned = {key: self.settings[key] for key in TUNED if key in self.settings}
        tuned["seed"] = seed_of(problem, TRIAL)  # as that of other trials: no part of what was chosen
        run = RunSpec(self.problem, self.strategy, None, replace(settings, **tuned), scored=False)
        return Arm(problem, budget, self.name, None, (run,), seeds, on=self.problem)
