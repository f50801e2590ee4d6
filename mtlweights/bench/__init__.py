"""The comparison: a suite, its runs, their results."""

from .protocol import Protocol, read_protocol
from .resolve import run_until_resolved
from .results import read_results
from .runspec import RunSpec
from .schedule import run_suite
from .suite import Suite
from .suitefile import load_suite

__all__ = [
    "Protocol",
    "RunSpec",
    "Suite",
    "load_suite",
    "read_protocol",
    "read_results",
    "run_suite",
    "run_until_resolved",
]
