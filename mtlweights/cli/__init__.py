"""The command line: ``mtlweights list | train | bench | tune | report | test``."""

from .main import main

__all__ = ["main"]
