"""The command line: ``mtlweights list | train | bench | report``."""

from .main import main

__all__ = ["main"]
