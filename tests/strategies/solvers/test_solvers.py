"""The T x T solvers against independent ways to the same answer."""

from itertools import combinations

import numpy as np
import pytest

from mtlweights.strategies.solvers import min_norm, project_conflicts

RNG = np.random.default_rng


def jacobians(m, rng):
    """Gradients [m, P] of every awkward kind, at every scale."""
    plain = rng.normal(size=(m, m + 2))
    low_rank = rng.normal(size=(m, max(1, m // 2)))
    twins = plain.copy()
    twins[-1] = twins[0]
    opposed = plain.copy()
    opposed[-1] = -opposed[0]
    near = rng.normal(size=m + 2) + 1e-6 * plain
    aligned = plain + 3 * rng.normal(size=m + 2)
    integers = np.round(plain)
    uneven = plain * 10.0 ** rng.uniform(-2, 2, size=(m, 1))
    kinds = [plain, low_rank, twins, opposed, near, aligned, integers, uneven]
    return [scale * kind for kind in kinds for scale in (1e-6, 1.0, 1e6)]


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
    for jacobian in [j for _ in range(5) for j in jacobians(m, rng)]:
        alpha = min_norm(jacobian @ jacobian.T)
        size = np.linalg.norm(jacobian, axis=1).min()
        # Through the Gramian, a length far below the gradients' is only known to sqrt(1e-16).
        assert np.linalg.norm(alpha @ jacobian) <= shortest_by_enumeration(jacobian) + 1e-7 * size


@pytest.mark.parametrize("m", [2, 3, 5, 8, 17, 40])
def test_min_norm_meets_the_optimality_conditions(m):
    rng = RNG(m)
    for jacobian in [j for _ in range(4) for j in jacobians(m, rng)]:
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


@pytest.mark.parametrize("m", [2, 3, 4, 8, 20])
def test_project_conflicts_equals_surgery_on_the_gradients(m):
    rng = RNG(m)
    for jacobian in (rng.normal(size=(m, p)) * 10.0 ** rng.uniform(-2, 2, (m, 1)) for p in (2, 3, m, 100)):
        orders = random_orders(m, rng)
        weights = project_conflicts(jacobian @ jacobian.T, orders)
        expected = surgery(jacobian, orders)
        assert weights @ jacobian == pytest.approx(expected, abs=1e-9 * np.abs(jacobian).max())


@pytest.mark.parametrize("m", [1, 2, 3, 8])
def test_project_conflicts_degenerate(m):
    orders = random_orders(m, RNG(0)).reshape(m, m - 1)
    ones = np.ones(m)
    assert (project_conflicts(np.zeros((m, m)), orders) == ones).all()
    assert (project_conflicts(np.ones((m, m)), orders) == ones).all()  # no conflict
    signs = np.where(np.arange(m) % 2, -1.0, 1.0)
    opposed = np.outer(signs, signs)
    opposed[-1] = opposed[:, -1] = 0.0
    weights = project_conflicts(opposed, orders)
    assert np.isfinite(weights).all()
    assert weights[-1] == 1


def test_solvers_leave_their_input_alone():
    jacobian = RNG(0).normal(size=(5, 4))
    gram = jacobian @ jacobian.T
    before = gram.copy()
    min_norm(gram)
    project_conflicts(gram, random_orders(5, RNG(0)))
    assert (gram == before).all()
