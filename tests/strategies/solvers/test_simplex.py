"""The shortest vector of a hull, and the projection on the simplex."""

from itertools import combinations

import numpy as np
import pytest

from mtlweights.strategies.solvers import min_norm, project_simplex
from tests.strategies.solvers.helpers import awkward, nearest

RNG = np.random.default_rng


def shortest_by_enumeration(jacobian):
    """Length of the min-norm point, as the best affine minimiser over all faces of the simplex."""
    m = len(jacobian)
    best = np.inf
    for k in range(1, m + 1):
        for face in combinations(range(m), k):
            rows = jacobian[list(face)]
            edges = (rows[1:] - rows[0]).T
            t = np.linalg.lstsq(edges, -rows[0], rcond=None)[0] if k > 1 else np.zeros(0)
            share = np.concatenate([[1 - t.sum()], t])
            if (share >= -1e-9).all():
                best = min(best, np.linalg.norm(share @ rows))
    return best


@pytest.mark.parametrize("m", [2, 3, 4, 5])
def test_min_norm_is_the_shortest_over_all_faces(m):
    rng = RNG(m)
    for jacobian in [j for _ in range(5) for j in awkward(m, rng)]:
        alpha = min_norm(jacobian @ jacobian.T)
        size = np.linalg.norm(jacobian, axis=1).min()
        # Through the Gramian, a length far below the gradients' is only known to sqrt(1e-16).
        assert np.linalg.norm(alpha @ jacobian) <= shortest_by_enumeration(jacobian) + 1e-7 * size


@pytest.mark.parametrize("m", [2, 3, 5, 8, 17, 40, 64])
def test_min_norm_meets_the_optimality_conditions(m):
    rng = RNG(m)
    for jacobian in [j for _ in range(4) for j in awkward(m, rng)]:
        gram = jacobian @ jacobian.T
        alpha = min_norm(gram)
        assert alpha.min() >= 0
        assert alpha.sum() == pytest.approx(1, abs=1e-12)
        products = gram @ alpha
        rounding = 1e-11 * (np.abs(gram) @ alpha) + 1e-11 * alpha @ np.abs(gram) @ alpha
        excess = products - alpha @ products
        assert (excess >= -rounding).all()  # no task gets less than the shortest vector's own share
        assert (np.abs(excess) <= rounding)[alpha > 0].all()  # those that carry weight, exactly it


@pytest.mark.parametrize("m", [2, 3, 8])
def test_min_norm_degenerate(m):
    uniform = np.full(m, 1 / m)
    assert min_norm(np.zeros((m, m))) == pytest.approx(uniform)
    gram = np.diag(np.arange(m, dtype=float))
    assert min_norm(gram) == pytest.approx(np.eye(m)[0])  # a zero gradient takes all
    ones = min_norm(np.ones((m, m)))
    assert (ones.sum(), ones.min() >= 0) == (pytest.approx(1), True)


def test_min_norm_of_one_task():
    assert min_norm(np.array([[3.0]])) == [1.0]


@pytest.mark.parametrize("m", [2, 3, 8])
def test_min_norm_is_equivariant_and_scale_free(m):
    rng = RNG(m)
    for _ in range(50):
        jacobian = rng.normal(size=(m, m + 2))
        gram = jacobian @ jacobian.T
        alpha = min_norm(gram)
        order = rng.permutation(m)
        assert min_norm(gram[np.ix_(order, order)]) == pytest.approx(alpha[order], abs=1e-10)
        for scale in (1e-12, 1e12):
            assert min_norm(scale * gram) == pytest.approx(alpha, abs=1e-10)


def test_min_norm_of_orthogonal_gradients_weighs_by_inverse_square():
    squares = np.array([1.0, 4.0, 25.0, 1e8])
    assert min_norm(np.diag(squares)) == pytest.approx((1 / squares) / (1 / squares).sum(), rel=1e-12)


def test_min_norm_finds_a_tiny_share():
    """g_1 . (g_1 - g_2) = 1e-7 and |g_1 - g_2|^2 = 1: so much of g_2 shortens g_1."""
    jacobian = np.array([[1.0, 0.0, 0.0], [1 - 1e-7, 1.0, 0.0], [5.0, 0.0, 1.0]])
    assert min_norm(jacobian @ jacobian.T)[1:] == pytest.approx([1e-7, 0], rel=1e-4)


@pytest.mark.parametrize("m", [1, 2, 3, 40])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("total", [1.0, 0.3])
def test_projection_is_the_nearest_point_of_the_simplex(m, scale, total):
    for seed in range(5):
        point = np.random.default_rng(seed).normal(size=m) * scale
        before = point.copy()
        found = project_simplex(point, total)
        assert found == pytest.approx(nearest(point, total), abs=1e-15 + 1e-14 * scale)
        assert found.sum() == pytest.approx(total, rel=1e-14) and (found >= 0).all()
        assert (point == before).all()


def test_projection_of_points_at_the_edges():
    assert project_simplex(np.array([0.25, 0.75])).tolist() == [0.25, 0.75]
    assert project_simplex(np.array([3.0, 0.0, 1.0])).tolist() == [1, 0, 0]
    assert project_simplex(np.array([-7.0, -7.0])).tolist() == [0.5, 0.5]
    assert project_simplex(np.array([1e300, 1e300, -1e300])).tolist() == [0.5, 0.5, 0]
    assert project_simplex(np.array([1.0, 2.0]), 0.0).tolist() == [0, 0]
