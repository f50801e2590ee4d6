"""The columns of a table, each as what it gives a model: the same in training and in prediction."""

from __future__ import annotations

from typing import NamedTuple


class Feature(NamedTuple):
    """One column among the inputs."""

    name: str
    missing: float = 0.0  #: the number that stands for a missing one: the training mean
    categories: tuple[str | None, ...] = ()  #: of a column of text; None is a missing cell; () are numbers

    @property
    def width(self) -> int:
        """Number of inputs it makes."""
        return len(self.categories) or 1

    def encode(self, cell: float | str | None) -> tuple[float, ...]:
        """A number, or one-hot over the categories; a category that training has not is all zeros."""
        if self.categories:
            return tuple(float(cell == category) for category in self.categories)
        return (self.missing if cell is None else float(cell),)
