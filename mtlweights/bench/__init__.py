"""The comparison: a suite, its runs, their results."""

from .bench import run_suite
from .results import read_results
from .runspec import RunSpec
from .suite import Suite, load_suite

__all__ = ["RunSpec", "Suite", "load_suite", "read_results", "run_suite"]
