"""No solver changes its input."""

import numpy as np

from mtlweights.strategies.gram.pcgrad import project_conflicts, random_orders
from mtlweights.strategies.solvers import (
    alpha_fair,
    best_on_simplex,
    conflict_averse,
    cosines_and_norms,
    dual_cone,
    equal_cosines,
    least_change,
    min_norm,
    project_simplex,
)


def test_solvers_leave_their_input_alone():
    jacobian = np.random.default_rng(0).normal(size=(5, 7))
    gram, linear, vectors = jacobian @ jacobian.T, np.linspace(-1, 1, 5), np.eye(5)
    before = [value.copy() for value in (gram, linear, vectors)]
    conflict_averse(gram, 0.5), alpha_fair(gram, 2.0), dual_cone(gram, vectors), least_change(gram, linear)
    equal_cosines(gram), cosines_and_norms(gram), best_on_simplex(linear, gram, linear - 9)
    min_norm(gram), project_conflicts(gram, random_orders(5, 0, 0)), project_simplex(linear)
    assert all((a == b).all() for a, b in zip((gram, linear, vectors), before, strict=True))
