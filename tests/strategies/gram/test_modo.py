"""MoDo: projected steps of two batches."""

import numpy as np
import pytest

from tests.strategies.gram.helpers import of_third
from tests.strategies.helpers import MGDA_WEIGHTS, B, make
from tests.strategies.solvers.helpers import nearest

three = pytest.mark.parametrize("name", ["modo", "sdmgrad"])


def test_modo_on_known_gradients():
    strategy, expected = make("modo", 2, gamma=1e-3, rho=0.1), (0.4995, 0.5005)
    assert of_third(strategy, B) == pytest.approx(expected, rel=1e-12)
    assert strategy.share.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_tasks", [2, 5])
def test_modo_pairs_the_first_two_batches(n_tasks):
    rng, share = np.random.default_rng(0), np.full(n_tasks, 1 / n_tasks)
    strategy = make("modo", n_tasks, gamma=0.02, rho=0.3)
    for _ in range(6):
        one, two, three = rng.normal(size=(3, n_tasks, 7))
        share = nearest(share - 0.02 * (one @ two.T @ share + 0.3 * share))
        assert of_third(strategy, one, two, three) == pytest.approx(share, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("jacobian", "expected"), MGDA_WEIGHTS)
def test_modo_of_constant_gradients_ends_at_mgda(jacobian, expected):
    strategy = make("modo", 2, gamma=0.2 / np.square(jacobian).sum(), rho=0)
    for _ in range(1000):
        weights = of_third(strategy, jacobian)
    assert weights == pytest.approx(expected, abs=1e-9)


def test_modo_takes_the_scale_of_the_losses_for_a_step_size():
    rng = np.random.default_rng(1)
    plain, scaled = make("modo", 3, gamma=0.01, rho=0.2), make("modo", 3, gamma=0.01 / 49, rho=0.2 * 49)
    for _ in range(4):
        jacobians = rng.normal(size=(3, 3, 5))
        assert of_third(scaled, *(7 * jacobians)) == pytest.approx(of_third(plain, *jacobians), rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 1.0, 100.0])
def test_rho_pulls_towards_equal_weights(rho):
    """At the end ``(g_1 - g_2) . d + rho (w_1 - w_2) = 0``."""
    strategy = make("modo", 2, gamma=1 / (10 + 2 * rho), rho=rho)
    for _ in range(50):
        weights = of_third(strategy, B)
    assert weights[0] == pytest.approx((4 + rho) / (10 + 2 * rho), rel=1e-9)
