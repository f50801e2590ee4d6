"""What is learned and how it is scored."""

from .spec import format_spec, parse_spec
from .task import MISSING, Task, is_iob2, mean_normalised

__all__ = ["MISSING", "Task", "format_spec", "is_iob2", "mean_normalised", "parse_spec"]
