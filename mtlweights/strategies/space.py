"""Search spaces: what a strategy, the training loop and an encoder say is worth trying.

A space is a dict from a name to a range, written as a literal:

- ``(0.0, 1.0)``: numbers, ends included; whole ones where both ends are, ``(1, 4)``
- ``(1e-4, 1e-1, "log")``: numbers, as likely in every decade
- ``["none", "l2"]``: one of these
- ``("ratios", 100.0)``: a weight for every task, mean 1; that of each later task over that of the first is
  between 1/100 and 100, as likely in every decade
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

DIGITS = 4  #: of what is suggested: more make no difference, and these can be read in a run's name
Plain = bool | int | float | str | None


@dataclass(frozen=True)
class Numbers:
    """Numbers from ``low`` to ``high``, ends included."""

    low: float
    high: float
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether they are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def suggest(self, trial: Any, name: str, n_tasks: int) -> float:
        """A value from an Optuna trial, to `DIGITS`."""
        if self.whole:
            return int(trial.suggest_int(name, self.low, self.high, log=self.log))
        value = _rounded(trial.suggest_float(name, self.low, self.high, log=self.log))
        return min(max(value, self.low), self.high)

    def fixed(self, name: str, value: Any, n_tasks: int) -> dict[str, Any]:
        """The trial's parameters that give ``value``.

        Raises:
            ValueError: it is outside.
        """
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and self.low <= value <= self.high and (isinstance(value, int) or not self.whole)):
            raise ValueError(f"{name} should be from {self.low:g} to {self.high:g}, found {value!r}.")
        return {name: value}

    def ends(self, n_tasks: int) -> list[Any]:
        """The values at the ends."""
        return [self.low, self.high]


@dataclass(frozen=True)
class Choices:
    """One of some plain values."""

    values: tuple[Plain, ...]

    def suggest(self, trial: Any, name: str, n_tasks: int) -> Plain:
        """A value from an Optuna trial."""
        return trial.suggest_categorical(name, self.values)

    def fixed(self, name: str, value: Any, n_tasks: int) -> dict[str, Any]:
        """The trial's parameters that give ``value``.

        Raises:
            ValueError: it is none of them.
        """
        if value not in self.values:
            raise ValueError(f"{name} should be one of {list(self.values)}, found {value!r}.")
        return {name: value}

    def ends(self, n_tasks: int) -> list[Any]:
        """All of them."""
        return list(self.values)


@dataclass(frozen=True)
class Ratios:
    """Weights of T tasks, mean 1: the ratios to the first one's are log-uniform in [1/most, most]."""

    most: float

    def suggest(self, trial: Any, name: str, n_tasks: int) -> list[float]:
        """Weights [T], to `DIGITS`, from T - 1 parameters ``name.1``, ``name.2`` ... of an Optuna trial."""
        names = [f"{name}.{i}" for i in range(1, n_tasks)]
        ratios = [trial.suggest_float(n, 1 / self.most, self.most, log=True) for n in names]
        return [_rounded(weight) for weight in _mean_1([1.0, *ratios])]

    def fixed(self, name: str, value: Any, n_tasks: int) -> dict[str, Any]:
        """The trial's parameters that give ``value``, weights or None for equal ones.

        Raises:
            ValueError: they are no weights of T tasks, or a ratio is outside.
        """
        weights = [1.0] * n_tasks if value is None else value
        usable = isinstance(weights, Sequence) and len(weights) == n_tasks and weights[0] > 0
        ratios = [weight / weights[0] for weight in weights] if usable else []
        if not usable or not all(1 / self.most <= ratio <= self.most for ratio in ratios):
            wanted = f"{n_tasks} weights, whose ratios to the first are at most {self.most:g} either way"
            raise ValueError(f"{name} should be {wanted}, found {value!r}.")
        return {f"{name}.{i}": ratio for i, ratio in enumerate(ratios) if i}

    def ends(self, n_tasks: int) -> list[Any]:
        """The first task's weight as small and as large as it can be."""
        return [_mean_1([1.0, *[end] * (n_tasks - 1)]) for end in (self.most, 1 / self.most)]


Range = Numbers | Choices | Ratios


def read_range(name: str, declared: Any) -> Range:
    """A range from its literal.

    Raises:
        ValueError: it is no range.
    """
    match declared:
        case tuple((low, high, "log")) if _ordered(low, high) and low > 0:
            return Numbers(low, high, True)
        case tuple((low, high)) if _ordered(low, high):
            return Numbers(low, high)
        case tuple(("ratios", most)) if _ordered(1, most):
            return Ratios(float(most))
        case list() if declared and all(isinstance(v, Plain) for v in declared):
            return Choices(tuple(dict.fromkeys(declared)))
    raise ValueError(
        f"{name}: a range is (low, high), (low, high, 'log') above 0, ('ratios', most) or a list of choices; "
        f"found {declared!r}."
    )


def read_space(space: Mapping[str, Any]) -> dict[str, Range]:
    """Every range of a space.

    Raises:
        ValueError: one is none.
    """
    return {name: read_range(name, declared) for name, declared in space.items()}


def _ordered(low: Any, high: Any) -> bool:
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in (low, high))
    return numbers and math.isfinite(low) and math.isfinite(high) and low < high


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _mean_1(weights: list[float]) -> list[float]:
    total = sum(weights)
    return [len(weights) * weight / total for weight in weights]
