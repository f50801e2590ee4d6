"""The command line: ``mtlweights list | train | predict | export | compress | serve | bench | ...``."""

from .main import main

__all__ = ["main"]
