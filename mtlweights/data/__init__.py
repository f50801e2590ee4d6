"""Problems: built-in ones, and those made from a user's own files."""

from .digest import digest
from .load import load, problems
from .problem import Batch, Example, Problem

__all__ = ["Batch", "Example", "Problem", "digest", "load", "problems"]
