"""What is tested: a strategy class, its hyperparameters, and for how many tasks."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..specs import parse_spec
from ..strategies import Strategy, get
from ..strategies.loading import FILE, from_file
from ..strategies.making import make_strategy

SIZES = (1, 2, 3, 10, 40)  #: numbers of tasks
SMALL = (2, 3, 4, 5, 6, 7, 8)  #: those on which properties are judged


@dataclass(frozen=True)
class Subject:
    """A strategy class under test, made with the given hyperparameters for every size."""

    cls: type[Strategy]
    hyperparameters: Mapping[str, Any] = field(default_factory=dict)
    sizes: tuple[int, ...] = SIZES

    def make(self, n_tasks: int, seed: int = 0) -> Strategy:
        """A fresh instance; AssertionError if the class cannot be built."""
        try:
            strategy = make_strategy(self.cls, n_tasks, self.hyperparameters)
        except Exception as error:
            given = "".join(f", {key}={value!r}" for key, value in self.hyperparameters.items())
            call = f"{self.cls.__name__}({n_tasks}{given})"
            raise AssertionError(
                f"{call} raised {type(error).__name__}: {error} (other numbers of tasks: --tasks, sizes=)"
            ) from error
        strategy.seed = seed
        return strategy

    def sizes_from(self, least: int) -> list[int]:
        """The sizes of at least ``least`` tasks."""
        return [n for n in self.sizes if n >= least]

    def few(self) -> list[int]:
        """Two sizes that are quick to train: the least, and 3 or else the next."""
        return sorted({self.sizes[0], next((n for n in self.sizes if n >= 3), self.sizes[-1])})

    def small(self) -> Subject:
        """The same for 2 to 8 tasks: those of them for which it builds."""
        return replace(self, sizes=tuple(n for n in SMALL if self._builds(n)))

    def _builds(self, n_tasks: int) -> bool:
        try:
            self.make(n_tasks)
        except AssertionError:
            return False
        return True


def as_subject(
    strategy: str | type[Strategy] | Subject,
    hyperparameters: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = SIZES,
) -> Subject:
    """A subject from a class, or from a spec of a single one (see :func:`find`)."""
    if isinstance(strategy, Subject):
        return strategy
    if isinstance(strategy, str):
        found = find(strategy, sizes)
        if len(found) > 1:
            known = ", ".join(subject.cls.__name__ for subject in found)
            raise ValueError(f"{strategy} holds several strategies, name one as {strategy}:Class: {known}.")
        strategy, hyperparameters = found[0].cls, {**found[0].hyperparameters, **(hyperparameters or {})}
    return Subject(strategy, dict(hyperparameters or {}), tuple(sorted(sizes)))


def find(spec: str, sizes: Sequence[int] = SIZES) -> list[Subject]:
    """The subjects of a spec: ``FILE.py``, ``FILE.py:Class``, ``pkg.module:Class`` or a registry name.

    Hyperparameters follow as usual, ``my_strategy.py:MyStrategy:alpha=2``. A file alone stands for all the
    strategies it defines.

    Raises:
        ValueError: the file cannot be read or run, or holds no usable strategy, the name is unknown, or the
            class has arguments without a default.
        ImportError: the module cannot be imported.
    """
    name, hyperparameters = parse_spec(spec)
    file = FILE.fullmatch(name)
    classes = from_file(file["file"], file["name"]) if file else [get(name)]
    for cls in classes:
        _check_arguments(cls)
        if set(hyperparameters) - set(inspect.signature(cls).parameters):
            make_strategy(cls, 1, hyperparameters)  # raises, and says what it takes
    return [Subject(cls, hyperparameters, tuple(sorted(sizes))) for cls in classes]


def _check_arguments(cls: type[Strategy]) -> None:
    """Every argument after the number of tasks needs a default."""
    later = list(inspect.signature(cls).parameters.values())[1:]
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [p.name for p in later if p.default is p.empty and p.kind not in kinds]
    if needed:
        raise ValueError(
            f"{cls.__name__} needs arguments without defaults: {', '.join(needed)}. A strategy is built as "
            f"{cls.__name__}(n_tasks); give them defaults."
        )
