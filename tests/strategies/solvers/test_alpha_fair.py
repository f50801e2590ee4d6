"""Alpha-fairness: its equation."""

import math

import numpy as np
import pytest

from mtlweights.strategies.solvers import alpha_fair
from tests.strategies.solvers.helpers import awkward

SIZES = [2, 3, 5, 8, 17, 40]


@pytest.mark.parametrize("alpha", [0.1, 0.12, 0.5, 1.0, 2.0, 5.0, 50.0, 100.0])
@pytest.mark.parametrize("m", SIZES)
def test_alpha_fair_solves_its_equation(m, alpha):
    """Up to rounding of the terms of G w; a weight below the least float64 is 0."""
    kinds = awkward(m, np.random.default_rng(m))
    for jacobian in kinds[:3] + kinds[-3:]:  # of full rank, even and uneven
        gram = jacobian @ jacobian.T
        weights = alpha_fair(gram, alpha)
        some, products = weights > 0, gram @ weights
        terms = np.abs(gram) @ weights
        wanted = weights[some] ** (-1 / alpha)
        assert products[some] == pytest.approx(wanted, rel=0, abs=1e-9 * terms.max())
        if 0.5 <= alpha <= 5:
            assert products * weights ** (1 / alpha) == pytest.approx(np.ones(m), rel=1e-8)
    for jacobian in kinds:
        weights = alpha_fair(jacobian @ jacobian.T, alpha)
        assert np.isfinite(weights).all() and (weights >= 0).all() and weights.max() > 0


SKEW = [(1, 2, 0, 0), (-1, 1, 1, 0), (0, -2, 1, 5), (1, 1, 1, 1)]


@pytest.mark.parametrize(
    ("alpha", "rows", "weights"),
    [
        (0.1, [(6, -6, 9, 6), (-2, -3, -2, -1), (-2, 1, 1, 2)], (0.6280113886, 0.9089156018, 0.8191754492)),
        (
            0.1,
            [(200, 100, -300, 100), (-3, 1, 3, -2), (0, -3, 3, 0)],
            (0.5166432158, 29.52246947, 24.6020579),
        ),
        (50, SKEW, (0.2047821816, 0.2973338718, 0.07233273725, 1.035515085e-4)),
        (100, SKEW, (0.2011036291, 0.2940182143, 0.07084196822, 6.111474055e-8)),
        (100, [(1e4, 0), (0.3, 0.3)], ((3000 * 0.18 ** (-1 / 1.01)) ** -100, 0.18 ** (-1 / 1.01))),
        (100, [(1e4, 0), (0.3, math.sqrt(0.91))], (0, 1)),  # 3000^-100 underflows
        (100, [(0.3, math.sqrt(0.91)), (1e4, 0)], (1, 0)),
        (50, [(1e4, 0), (0.3, math.sqrt(0.91))], (3000.0**-50, 1)),
    ],
)
def test_alpha_fair_far_from_one(alpha, rows, weights):
    """Newton's method in 400 digits; of two gradients where one weight vanishes, by hand."""
    jacobian = np.array(rows, dtype=float)
    assert alpha_fair(jacobian @ jacobian.T, alpha) == pytest.approx(weights, rel=2e-9, abs=0)


def test_alpha_fair_gives_a_zero_gradient_the_largest_weight():
    assert alpha_fair(np.diag([4.0, 0.0, 16.0]), 1.0) == pytest.approx([0.5, 0.5, 0.25])
    assert alpha_fair(np.zeros((3, 3)), 2.0).tolist() == [1, 1, 1]


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_gradients_of_many_tasks_that_cancel_leave_no_direction(alpha):
    """128 in 32 dimensions."""
    jacobian = np.random.default_rng(0).normal(size=(128, 32))
    weights = alpha_fair(jacobian @ jacobian.T, alpha)
    assert weights.min() >= 0
    assert 1e-3 < weights.max() < 10
    assert np.linalg.norm(weights @ jacobian) < 1e-4 * np.linalg.norm(jacobian)
