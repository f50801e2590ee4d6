"""Contrastive weights: two steps by hand, and what they favour."""

import math

import numpy as np
import pytest
import torch
from scipy import optimize

from mtlweights.strategies.jacobian.contrastive import Contrastive, variances
from tests.strategies.jacobian.helpers import Run


def test_sharpness_reaches_the_minimum():
    rng = np.random.default_rng(1)
    x = np.eye(5) + 0.6 * rng.normal(size=(5, 5))
    strategy = Contrastive(5)
    for _ in range(2000):
        strategy._learn(torch.from_numpy(x))

    def loss(b):
        return (np.log(np.exp(b * x).sum(1)) - b * np.diag(x)).mean()

    best = optimize.minimize_scalar(loss, bounds=(0, 20), method="bounded").x
    assert best > 1.2
    assert float(strategy.sharpness) == pytest.approx(best, rel=0.02)


def test_two_steps_of_contrastive_by_hand():
    """Keys after step 1: (0.1, 0) and (0, 0.1). Step 2: products ((0.1, 0), (0.06, 0.08))."""
    run = Run(Contrastive(2))
    assert run.step([[2, 0], [0, 4]]) == pytest.approx([3, 3])
    run.step([[5, 0], [6, 8]])
    scale = [math.sqrt((0.05 + 0.045) / 2), math.sqrt((0.04 + 0.045) / 2)]
    related = 0.015 / (scale[0] * scale[1])
    assert run.strategy.relations() == pytest.approx(np.array([[1, related], [related, 1]]), rel=1e-6)
    x = np.array([[0.1, 0], [0.06, 0.08]]) / np.outer(scale, scale)
    guess = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    slope = ((guess * x).sum(1) - np.diag(x)).mean()
    curvature = ((guess * x**2).sum(1) - (guess * x).sum(1) ** 2).mean()
    sharpness = 1 - slope / (1 + curvature)
    assert float(run.strategy.sharpness) == pytest.approx(sharpness, rel=1e-6)
    assert run.weights == pytest.approx([7.5 / 5, 7.5 / 10], rel=1e-6)  # two tasks: R symmetric, shares 1
    assert Run(Contrastive(2)).strategy.relations() == pytest.approx(np.eye(2))


def test_contrastive_weights_favour_what_others_could_be():
    """Three tasks in a row, the middle one between: R 12 = R 23 > R 13, so it gets the most."""
    strategy = Contrastive(3)
    strategy.products.copy_(torch.tensor([[1.0, 0.8, 0.2], [0.8, 1.0, 0.8], [0.2, 0.8, 1.0]]))
    strategy.count.fill_(1e9)
    strategy.sharpness.fill_(2)
    run = Run(strategy)
    run.step(np.eye(3, 4))
    e = [math.exp(2 * r) for r in (1, 0.8, 0.2)]
    ends, middle = sum(e), e[0] + 2 * e[1]
    expected = [(e[0] + e[2]) / ends + e[1] / middle, 2 * e[1] / ends + e[0] / middle]
    assert run.weights == pytest.approx([expected[0], expected[1], expected[0]], rel=1e-5)
    assert run.weights.sum() == pytest.approx(3)


def test_variance_of_a_signal_is_half_its_own_and_at_least_half_the_mean():
    products = torch.diag(torch.tensor([0.4, 0.0, -0.1]))
    assert variances(products).numpy() == pytest.approx([0.4 / 2 + 0.2 / 3, 0.2 / 3, 0.2 / 3])
