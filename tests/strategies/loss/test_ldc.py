"""LDC: its start, its underflow, a long training."""

import math

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.helpers import LOSSES, loss_weights, make


def test_ldc_at_the_start():
    """sigma = sigmoid(1) each: shares of 1/3, and the penalty's signs -, 0, +."""
    strategy, sigma = make("ldc", 3, penalty=0.1), 1 / (1 + math.exp(-1))
    value, weights = loss_weights(strategy)
    assert value == pytest.approx(10.5 / 3 + 0.1 * sigma * 7.5)
    assert weights == pytest.approx([1 / 3 - 0.1 * sigma, 1 / 3, 1 / 3 + 0.1 * sigma])
    gradient = torch.autograd.grad(strategy.combine(torch.tensor(LOSSES)), strategy.phi)[0]
    by_sigma = np.array(LOSSES) / (3 * sigma) + 0.1 * np.array([-0.5, 0, 8])  # the sum of sigma is a constant
    assert gradient.tolist() == pytest.approx(sigma * (1 - sigma) * by_sigma)


def test_ldc_where_sigma_underflows():
    """Shares of one half each, where exp(-phi) is beyond float32."""
    strategy = make("ldc", 2)
    with torch.no_grad():
        strategy.phi.fill_(-89.0)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    value = strategy.combine(losses)
    gradient, learned = torch.autograd.grad(value, [losses, strategy.phi])
    assert value.item() == pytest.approx(1.5)
    assert gradient.tolist() == pytest.approx([0.5, 0.5])
    assert learned.tolist() == pytest.approx([0.5, 1.0])


@pytest.mark.parametrize("lr", [None, 1.0])
def test_ldc_lives_through_a_long_training(lr):
    """At a rate of 1, phi is past -88, where its exponential is 0, after 90 steps."""
    a, b = torch.tensor([2.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    balancer, optimizer = Balancer("ldc", ["a", "b"], weight_lr=lr), torch.optim.SGD([a, b], lr=0.05)
    for _ in range(150):
        optimizer.zero_grad()
        balancer({"a": (a * a).mean() + 1, "b": (b * b).mean() + 2}).backward()
        optimizer.step()
    fallen = 1 - balancer.strategy.phi  # it only falls, by up to the rate in a step
    assert (fallen > (0.05 if lr is None else 100)).all() and (fallen <= 150 * (lr or 1e-3) + 1e-3).all()
    weights = [w.item() for w in balancer.weights.values()]
    assert min(weights) > 0.1 and sum(weights) == pytest.approx(1, abs=0.02)
    assert abs(a.item()) < 0.02 and abs(b.item()) < 0.1


def test_ldc_weight_may_be_negative():
    assert loss_weights(make("ldc", 3, penalty=1), (8.0, 0.5, 2.0))[1][1] < 0
