"""CAGrad's problem: the duality gap."""

import numpy as np
import pytest

from mtlweights.strategies.solvers import conflict_averse
from tests.strategies.solvers.helpers import awkward

SIZES = [2, 3, 5, 8, 17, 40, 64]


OPPOSED = range(9, 12)  # places of awkward's kind with a gradient that is another's negative


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("m", SIZES)
def test_conflict_averse_closes_the_duality_gap(m, c):
    for place, jacobian in enumerate(awkward(m, np.random.default_rng(m))):
        weights = conflict_averse(jacobian @ jacobian.T, c)
        mean, d = jacobian.mean(axis=0), weights @ jacobian
        added, radius = weights - 1 / m, c * np.linalg.norm(mean)
        assert np.linalg.norm(d - mean) <= radius + 1e-9 * np.linalg.norm(mean)
        assert added.min() >= -1e-12 * np.abs(weights).max()
        combined = added / added.sum() @ jacobian if added.sum() > 0 else mean
        dual = combined @ mean + radius * np.linalg.norm(combined)
        if place in OPPOSED:  # zero is a combination too
            dual = min(dual, 0.0)
        size = np.linalg.norm(jacobian, axis=1).max() * np.linalg.norm(mean)
        assert -1e-10 * size <= dual - (jacobian @ d).min() <= 1e-10 * size


def test_conflict_averse_at_a_kink_is_the_projection_of_the_mean():
    """g_1 = -2 g_2 and a long g_3 across: no loss may rise, so d is the mean's part along g_3."""
    jacobian = np.array([[1.0, 0], [-2, 0], [0, 30]])
    assert conflict_averse(jacobian @ jacobian.T, 0.5) @ jacobian == pytest.approx([0, 10], abs=1e-9)
