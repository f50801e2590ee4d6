"""Problems: built-in ones, and those made from a user's own files."""

from .load import load, problems
from .problem import Batch, Example, Problem

__all__ = ["Batch", "Example", "Problem", "load", "problems"]
