"""The removal of conflicts against surgery on the gradients."""

import numpy as np
import pytest

from mtlweights.strategies.gram.pcgrad import project_conflicts

RNG = np.random.default_rng


def surgery(jacobian, orders):
    """PCGrad on the gradients themselves, as the paper writes it."""
    total = np.zeros(jacobian.shape[1])
    for i, order in enumerate(orders):
        gradient = jacobian[i].copy()
        for j in order:
            product = gradient @ jacobian[j]
            if product < 0:
                gradient -= product / (jacobian[j] @ jacobian[j]) * jacobian[j]
        total += gradient
    return total


def random_orders(m, rng):
    return np.array([rng.permutation([j for j in range(m) if j != i]) for i in range(m)])


@pytest.mark.parametrize("m", [2, 3, 4, 8, 20, 40])
def test_project_conflicts_equals_surgery_on_the_gradients(m):
    rng = RNG(m)
    for jacobian in (rng.normal(size=(m, p)) * 10.0 ** rng.uniform(-2, 2, (m, 1)) for p in (2, 3, m, 100)):
        orders = random_orders(m, rng)
        weights = project_conflicts(jacobian @ jacobian.T, orders)
        expected = surgery(jacobian, orders)
        assert weights @ jacobian == pytest.approx(expected, abs=1e-9 * np.abs(jacobian).max())


@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_project_conflicts_degenerate(m):
    orders = random_orders(m, RNG(0)).reshape(m, m - 1).astype(int)
    ones = np.ones(m)
    assert (project_conflicts(np.zeros((m, m)), orders) == ones).all()
    assert (project_conflicts(np.ones((m, m)), orders) == ones).all()  # no conflict
    signs = np.where(np.arange(m) % 2, -1.0, 1.0)
    opposed = np.outer(signs, signs)
    opposed[-1] = opposed[:, -1] = 0.0
    weights = project_conflicts(opposed, orders)
    assert np.isfinite(weights).all()
    assert weights[-1] == 1
