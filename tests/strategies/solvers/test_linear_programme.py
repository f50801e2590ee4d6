"""The linear programme on the simplex."""

import numpy as np
import pytest

from mtlweights.strategies.solvers import best_on_simplex


def test_best_on_simplex():
    inside = best_on_simplex(np.array([1.0, 2, 3]), np.eye(3), np.array([0.5, 0.2, 0.0]))
    assert inside == pytest.approx([0.5, 0.2, 0.3])
    assert best_on_simplex(np.ones(3), np.eye(3), np.full(3, 0.5)) is None
    assert best_on_simplex(np.array([1.0, 2]), np.eye(2), np.array([0.25, 0.0])) == pytest.approx(
        [0.25, 0.75]
    )
    assert best_on_simplex(np.array([2.0, 1]), np.eye(2), np.array([0.0, 0.25])) == pytest.approx(
        [0.75, 0.25]
    )
    assert best_on_simplex(np.ones(2), np.eye(2), np.array([0.5, 0.1])) == pytest.approx([0.7, 0.3])
    assert best_on_simplex(np.ones(2), np.eye(2), np.full(2, 0.6)) is None


def test_of_many_tasks_the_interior_point_method_finds_a_vertex_that_is_best():
    rng = np.random.default_rng(0)
    gain, rows = rng.normal(size=70), rng.normal(size=(30, 70))
    b = best_on_simplex(gain, rows, np.zeros(30))
    assert b.sum() == pytest.approx(1)
    assert (rows @ b).min() >= -1e-7
    assert (b > 0).sum() <= 31
    # a feasible point and a bound on all, by the multipliers of the conditions that are met: none is better
    held, some = rows @ b < 1e-7, b > 0
    system = np.column_stack([-rows[held][:, some].T, np.ones(some.sum())])
    *multipliers, best = np.linalg.lstsq(system, gain[some], rcond=None)[0]
    assert best == pytest.approx(gain @ b)
    assert min(multipliers) >= -1e-9
    assert (gain + multipliers @ rows[held] <= best + 1e-9).all()
