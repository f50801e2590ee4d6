"""What several strategies on the Gramian have in common."""

import math

import numpy as np
import pytest

from mtlweights import strategies
from tests.strategies.gram.helpers import of_every_rank
from tests.strategies.helpers import direction, pairs, weigh


def test_two_task_closed_forms():
    rng = np.random.default_rng(0)
    for _ in range(300):
        g = rng.normal(size=(2, 5)) * 10.0 ** rng.uniform(-3, 3, size=(2, 1))
        dot, norm = g[0] @ g[1], (g * g).sum(axis=1)
        surgery = sum(g[i] * (1 - min(dot, 0) / norm[i]) for i in range(2))
        assert direction("pcgrad", g) == pytest.approx(surgery, rel=1e-9)
        share = np.clip((g[1] - g[0]) @ g[1] / ((g[0] - g[1]) @ (g[0] - g[1])), 0, 1)
        shortest = share * g[0] + (1 - share) * g[1]
        assert direction("mgda", g) == pytest.approx(shortest, rel=1e-9, abs=1e-12 * np.abs(g).max())
        assert (g @ direction("mgda", g) >= -1e-12 * norm.max()).all()


def test_bisector_family_in_closed_form():
    """IMTL-G, ConFIG and Nash-MTL follow u_1 + u_2 for T = 2, at harmonic, arithmetic and constant length."""
    for g in pairs():
        n = np.linalg.norm(g, axis=1)
        both = g[0] / n[0] + g[1] / n[1]
        cosine = g[0] @ g[1] / n.prod()
        assert direction("imtl_g", g) == pytest.approx(n.prod() / n.sum() * both, rel=1e-9)
        assert direction("config", g) == pytest.approx(n.sum() / 2 * both, rel=1e-9)
        assert direction("nash_mtl", g) == pytest.approx(both / math.sqrt(1 + cosine), rel=1e-9)


def test_cones_of_two_in_closed_form():
    for g in pairs():
        half = direction("pcgrad", g) / 2
        assert direction("upgrad", g) == pytest.approx(half, rel=1e-9)
        mean = g.mean(axis=0)
        worst = int((g @ mean).argmin())
        shortfall = min(g[worst] @ mean, 0) / (g[worst] @ g[worst])
        assert direction("dualproj", g) == pytest.approx(mean - shortfall * g[worst], rel=1e-9)


@pytest.mark.parametrize("n_tasks", [3, 5, 8])
def test_imtl_g_and_config_treat_all_gradients_alike(n_tasks):
    rng = np.random.default_rng(n_tasks)
    for _ in range(40):
        g = rng.normal(size=(n_tasks, n_tasks + 3)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        for name in ("imtl_g", "config"):
            d = direction(name, g)
            assert unit @ d == pytest.approx([(unit @ d).mean()] * n_tasks, rel=1e-6)
            assert (unit @ d).min() > 0
        assert abs(weigh("imtl_g", g).sum()) == pytest.approx(1)
        d = direction("config", g)
        assert np.linalg.norm(d) == pytest.approx((g @ d).sum() / np.linalg.norm(d))


STATIONARY = ["upgrad", "dualproj", "nash_mtl", "fairgrad"]


FAMILY = [n for n in strategies.names() if issubclass(strategies.get(n), strategies.GramStrategy)]
FAMILY = [n for n in FAMILY if strategies.get(n).batches == 1]


@pytest.mark.parametrize("n_tasks", [1, 2, 3, 8, 40])
@pytest.mark.parametrize("name", FAMILY)
def test_always_finite(name, n_tasks):
    for jacobian in of_every_rank(n_tasks, 0):
        with np.errstate(over="raise", divide="raise", invalid="raise"):
            weights = weigh(name, jacobian)
        assert np.isfinite(weights).all()


@pytest.mark.parametrize("name", STATIONARY)
@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_zero_at_pareto_stationary_points(name, n_tasks):
    """Where a combination of all gradients is zero; at other stationary points these may move."""
    rng = np.random.default_rng(n_tasks)
    for scale in (1e-6, 1.0, 1e6):
        jacobian = rng.normal(size=(n_tasks, 6))
        jacobian[-1] = -rng.uniform(0.2, 2, n_tasks - 1) @ jacobian[:-1]
        weights = weigh(name, scale * jacobian)
        size = np.abs(weights) @ np.linalg.norm(jacobian, axis=1)
        assert np.linalg.norm(weights @ jacobian) <= 2e-6 * size


@pytest.mark.parametrize("name", ["imtl_g", "config"])
def test_direction_ignores_the_scale_of_each_task(name):
    rng = np.random.default_rng(4)
    jacobian, scales = rng.normal(size=(4, 7)), 10.0 ** rng.uniform(-3, 3, 4)
    one, two = direction(name, jacobian), direction(name, scales[:, None] * jacobian)
    assert two / np.linalg.norm(two) == pytest.approx(one / np.linalg.norm(one), abs=1e-6)
