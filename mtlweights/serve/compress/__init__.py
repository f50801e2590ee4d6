"""A trained model made smaller and faster, and what that costs each task: one table."""

from .ways import WAYS, compress

__all__ = ["WAYS", "compress"]
