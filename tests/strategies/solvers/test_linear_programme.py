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
