"""Solvers on the T x T Gramian. Pure functions of float64 arrays; they never change their input."""

from .alpha_fair import alpha_fair
from .conditions import along_ray, under_bounds
from .conflict_averse import conflict_averse
from .cosines import cosines_and_norms, equal_cosines
from .dual_cone import dual_cone, least_change
from .equal_norms import equal_norms
from .in_turn import added_in_turn
from .linear_programme import best_on_simplex
from .simplex import min_norm, momentum_steps, project_simplex, stable_step

__all__ = [
    "added_in_turn",
    "along_ray",
    "alpha_fair",
    "best_on_simplex",
    "conflict_averse",
    "cosines_and_norms",
    "dual_cone",
    "equal_cosines",
    "equal_norms",
    "least_change",
    "min_norm",
    "momentum_steps",
    "project_simplex",
    "stable_step",
    "under_bounds",
]
