"""SDMGrad: projected descent with momentum, its step size, its regularisation."""

import numpy as np
import pytest
import torch

from mtlweights.strategies.solvers import min_norm
from tests.strategies.gram.helpers import of_third
from tests.strategies.helpers import MGDA_WEIGHTS, make
from tests.strategies.solvers.helpers import nearest

three = pytest.mark.parametrize("name", ["modo", "sdmgrad"])


@pytest.mark.parametrize("n_tasks", [2, 5])
def test_sdmgrad_is_projected_sgd_with_momentum_from_the_last_weights(n_tasks):
    rng, wanted = np.random.default_rng(3), 0.4 * np.arange(1, n_tasks + 1) / np.arange(n_tasks + 1).sum()
    options = {"regularisation": 0.4, "lr": 0.7, "momentum": 0.8, "iterations": 4}
    strategy = make("sdmgrad", n_tasks, preference=list(range(1, n_tasks + 1)), **options)
    w = np.full(n_tasks, 1 / n_tasks)
    for _ in range(5):
        one, two, three = rng.normal(size=(3, n_tasks, 6))
        norm = np.linalg.norm(np.concatenate([one, two]), axis=1).mean()
        velocity = 0
        for _ in range(4):
            velocity = 0.8 * velocity + one @ two.T @ (w + wanted) / norm**2
            w = nearest(w - 0.7 * velocity)
        assert of_third(strategy, one, two, three) == pytest.approx((w + wanted) / 1.4, rel=1e-9)


@pytest.mark.parametrize(("jacobian", "expected"), MGDA_WEIGHTS)
def test_sdmgrad_without_regularisation_is_mgda(jacobian, expected):
    assert of_third(make("sdmgrad", 2, regularisation=0, iterations=400), jacobian) == pytest.approx(
        expected, abs=1e-9
    )


@pytest.mark.parametrize("regularisation", [0.0, 0.3])
@pytest.mark.parametrize("n_tasks", [3, 10])
def test_sdmgrad_at_its_defaults_converges_where_the_step_size_of_the_authors_does_not(
    n_tasks, regularisation
):
    """The objective over its least value, found as the shortest vector of the shifted gradients."""
    ratios = {0.3: [], 10.0: []}
    for seed in range(10):
        jacobian = np.random.default_rng(seed).normal(size=(n_tasks, 30))
        shifted = jacobian + regularisation * jacobian.mean(0)  # as w sums to 1
        least = min_norm(shifted @ shifted.T) @ shifted
        for lr, ratio in ratios.items():
            weights = of_third(make("sdmgrad", n_tasks, regularisation=regularisation, lr=lr), jacobian)
            d = (1 + regularisation) * weights @ jacobian
            ratio.append(d @ d / (least @ least))
    assert np.max(ratios[0.3]) < 1.001
    assert np.mean(ratios[10.0]) > (2 if n_tasks == 3 else 5)


@pytest.mark.parametrize(("up", "down"), [(7, 5), (6, 5), (5, 5), (30, 30)])
def test_sdmgrad_at_its_defaults_converges_on_many_correlated_tasks(up, down):
    """Gradients +1 and -1: at a step size of 0.3 w jumps for ever, at |d| of 0.4 to 1; d should be 0."""
    jacobian = np.repeat([1.0, -1.0], [up, down])[:, None]
    strategy, fixed = (
        make("sdmgrad", up + down, regularisation=0),
        make("sdmgrad", up + down, regularisation=0, lr=0.3),
    )
    for each in (strategy, fixed):
        each.share += torch.tensor(jacobian[:, 0]) * 1e-3  # off the solution
        for _ in range(20):
            weights = of_third(each, jacobian)
        length = abs(weights @ jacobian)[0]
        assert length < 1e-9 if each is strategy else length > 0.1


def test_sdmgrad_uses_a_step_size_that_is_given():
    jacobian = np.random.default_rng(0).normal(size=(12, 1))
    free, fixed = (make("sdmgrad", 12, lr=lr, iterations=1) for lr in (None, 0.3))
    norm = np.abs(jacobian).mean()
    w = np.full(12, 1 / 12)
    moved = {each: of_third(each, jacobian) * 1.3 - 0.3 / 12 for each in (free, fixed)}
    slope = jacobian @ jacobian.T @ (1.3 * w) / norm**2
    centred = (jacobian - jacobian.mean()) / norm
    bound = 1.5 / (centred.T @ centred).item()  # of one singular value
    assert moved[fixed] == pytest.approx(nearest(w - 0.3 * slope), rel=1e-9)
    assert moved[free] == pytest.approx(nearest(w - bound * slope), rel=1e-9)
    assert bound < 0.2


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_sdmgrad_follows_the_scale_of_the_losses(scale):
    strategy, scaled = make("sdmgrad", 4), make("sdmgrad", 4)
    for seed in range(4):
        jacobians = np.random.default_rng(seed).normal(size=(3, 4, 6))
        assert of_third(scaled, *(scale * jacobians)) == pytest.approx(
            of_third(strategy, *jacobians), rel=1e-9
        )


@pytest.mark.parametrize(("preference", "expected"), [(None, (1 / 3, 1 / 3, 1 / 3)), ([1, 2, 5], (1, 2, 5))])
def test_large_regularisation_is_the_preferred_gradient(preference, expected):
    jacobian = np.random.default_rng(0).normal(size=(3, 4))
    weights = of_third(make("sdmgrad", 3, regularisation=1e9, preference=preference), jacobian)
    assert weights == pytest.approx(np.array(expected) / sum(expected), rel=1e-8)
