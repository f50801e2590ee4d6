"""The dual cone: optimality conditions, and what cannot be met."""

import numpy as np
import pytest

from mtlweights.strategies.solvers import dual_cone, least_change
from tests.strategies.solvers.helpers import awkward

SIZES = [2, 3, 5, 8, 17, 40]


@pytest.mark.parametrize("m", SIZES)
def test_dual_cone_meets_the_optimality_conditions(m):
    for jacobian in awkward(m, np.random.default_rng(m)):
        gram, norms = jacobian @ jacobian.T, np.linalg.norm(jacobian, axis=1)
        projected = dual_cone(gram, np.eye(m))
        added, length = (projected - np.eye(m)) * norms, (projected * norms).sum(axis=1, keepdims=True)
        progress = projected @ gram / norms
        assert (added >= -1e-12 * length).all()
        assert (progress >= -1e-10 * length).all()
        assert (np.abs(added * progress) <= 1e-10 * length**2).all()


def test_least_change_tells_what_cannot_be_met():
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert least_change(gram, np.array([-0.1, -0.1])) is None
    assert least_change(np.zeros((1, 1)), np.array([-1.0])) is None
    assert least_change(gram, np.array([-0.1, 0.2])) == pytest.approx([0.1, 0])
    assert least_change(np.eye(2), np.array([1.0, 0.0])).tolist() == [0, 0]
