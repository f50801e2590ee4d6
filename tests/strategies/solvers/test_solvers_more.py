"""CAGrad's problem, alpha-fairness, the dual cone, linear programmes: their optimality conditions."""

import math

import numpy as np
import pytest

from mtlweights.strategies.solvers import (
    alpha_fair,
    best_on_simplex,
    conflict_averse,
    cosines_and_norms,
    dual_cone,
    equal_cosines,
    least_change,
)
from tests.strategies.solvers.test_solvers import jacobians

SIZES = [2, 3, 5, 8, 17, 40]
OPPOSED = range(9, 12)  # places of jacobians' kind with a gradient that is another's negative


@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("m", SIZES)
def test_conflict_averse_closes_the_duality_gap(m, c):
    for place, jacobian in enumerate(jacobians(m, np.random.default_rng(m))):
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


@pytest.mark.parametrize("m", SIZES)
def test_dual_cone_meets_the_optimality_conditions(m):
    for jacobian in jacobians(m, np.random.default_rng(m)):
        gram, norms = jacobian @ jacobian.T, np.linalg.norm(jacobian, axis=1)
        projected = dual_cone(gram, np.eye(m))
        added, length = (projected - np.eye(m)) * norms, (projected * norms).sum(axis=1, keepdims=True)
        progress = projected @ gram / norms
        assert (added >= -1e-12 * length).all()
        assert (progress >= -1e-10 * length).all()
        assert (np.abs(added * progress) <= 1e-10 * length**2).all()


@pytest.mark.parametrize("alpha", [0.1, 0.12, 0.5, 1.0, 2.0, 5.0, 50.0, 100.0])
@pytest.mark.parametrize("m", SIZES)
def test_alpha_fair_solves_its_equation(m, alpha):
    """Up to rounding of the terms of G w; a weight below the least float64 is 0."""
    kinds = jacobians(m, np.random.default_rng(m))
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


@pytest.mark.parametrize("m", [2, 3, 8])
def test_equal_cosines_or_what_prevents_them(m):
    for jacobian in jacobians(m, np.random.default_rng(m)):
        cosines, norms = cosines_and_norms(jacobian @ jacobian.T)
        x, cancelling = equal_cosines(cosines)
        assert cosines @ x + cancelling == pytest.approx(np.ones(m), abs=1e-4 if m == 8 else 1e-3)
        unit = jacobian / norms[:, None]
        assert np.linalg.norm(cancelling @ unit) <= 1e-5


def test_least_change_tells_what_cannot_be_met():
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert least_change(gram, np.array([-0.1, -0.1])) is None
    assert least_change(np.zeros((1, 1)), np.array([-1.0])) is None
    assert least_change(gram, np.array([-0.1, 0.2])) == pytest.approx([0.1, 0])
    assert least_change(np.eye(2), np.array([1.0, 0.0])).tolist() == [0, 0]


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


def test_solvers_leave_their_input_alone():
    jacobian = np.random.default_rng(0).normal(size=(5, 7))
    gram, linear, vectors = jacobian @ jacobian.T, np.linspace(-1, 1, 5), np.eye(5)
    before = [value.copy() for value in (gram, linear, vectors)]
    conflict_averse(gram, 0.5), alpha_fair(gram, 2.0), dual_cone(gram, vectors), least_change(gram, linear)
    equal_cosines(gram), cosines_and_norms(gram), best_on_simplex(linear, gram, linear - 9)
    assert all((a == b).all() for a, b in zip((gram, linear, vectors), before, strict=True))
