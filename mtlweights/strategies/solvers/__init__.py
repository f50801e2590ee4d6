"""Solvers on the T x T Gramian. Pure functions of float64 arrays; they never change their input."""

from .conflicts import project_conflicts
from .dual_cone import dual_cone, least_change
from .fairness import alpha_fair
from .impartial import equal_cosines
from .scaling import cosines_and_norms
from .simplex import conflict_averse, min_norm

__all__ = [
    "alpha_fair",
    "conflict_averse",
    "cosines_and_norms",
    "dual_cone",
    "equal_cosines",
    "least_change",
    "min_norm",
    "project_conflicts",
]
