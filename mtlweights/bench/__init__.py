"""The comparison: a suite, its runs, their results."""

from .results import read_results
from .runspec import RunSpec
from .schedule import run_suite
from .suite import Suite, load_suite

__all__ = ["RunSpec", "Suite", "load_suite", "read_results", "run_suite"]
