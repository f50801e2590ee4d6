"""What is trained on: tasks and their metrics, data, models, and the problems that join them, by name."""

from .data.digest import digest
from .problem import Batch, Example, Problem
from .registry import load, problems
from .task import MISSING, Task, is_iob2, mean_normalised

__all__ = [
    "MISSING",
    "Batch",
    "Example",
    "Problem",
    "Task",
    "digest",
    "is_iob2",
    "load",
    "mean_normalised",
    "problems",
]
