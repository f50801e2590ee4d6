"""What a call brings: losses with their graphs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .leaves import Leaves


@dataclass
class Batch:
    """The losses of one call on this rank, m tasks present."""

    present: list[int]
    values: list[Tensor]  #: mean losses [], with their graphs
    counts: list[Any]  #: items each is the mean of, numbers or tensors []
    leaves: Leaves  #: what they reach
    factor: Tensor  #: the gradient that came in []
    retain_graph: bool = False
