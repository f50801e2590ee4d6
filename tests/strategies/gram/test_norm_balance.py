"""Gradient-norm weighting against its formula, and renewed every few steps."""

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies


def test_the_moving_average_of_the_ratios():
    norms = np.random.default_rng(0).uniform(0.01, 9, (5, 3))
    strategy = strategies.get("norm_balance")(3, decay=0.7)
    expected = [1.0, 1.0, 1.0]
    for n in range(5):
        for i in range(3):
            expected[i] = 0.7 * expected[i] + 0.3 * sum(norms[n]) / norms[n][i]
        found = strategy.weights(np.diag(norms[n] ** 2), np.ones(3), np.arange(3))
        assert found == pytest.approx(expected, rel=1e-12)


def test_without_memory_all_pull_with_the_sum_of_the_norms():
    strategy = strategies.get("norm_balance")(2, decay=0.0)
    assert strategy.weights(np.diag([1e-12, 9.0]), np.ones(2), np.arange(2)) * (1e-6, 3) == pytest.approx(
        [3.000001] * 2
    )


def test_a_zero_gradient_and_an_absent_task_leave_the_weight():
    strategy = strategies.get("norm_balance")(3, decay=0.5)
    strategy.weights(np.diag([1.0, 4.0, 0.0]), np.ones(3), np.arange(3))
    assert strategy.w.tolist() == [2, 1.25, 1]
    found = strategy.weights(np.diag([0.0, 1.0]), np.ones(2), np.array([0, 1]))
    assert found.tolist() == [2, 1.125] and strategy.w.tolist() == [2, 1.125, 1]


def test_every_few_steps_as_the_paper_has_it():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = Balancer("norm_balance", ["pde", "boundary"], model, every=3, decay=0.0)
    x, seen = torch.randn(4, 3), []
    for _ in range(7):
        optimizer.zero_grad()
        u = model(x)
        balancer({"pde": 50 * u.square().mean(), "boundary": (u - 1).square().mean()}).backward()
        optimizer.step()
        seen.append(balancer.weights["boundary"].item())
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[5] != seen[6]
    assert seen[0] > 10


def test_a_bad_decay_is_refused():
    with pytest.raises(ValueError, match="decay should be at least 0 and below 1, found 1"):
        strategies.get("norm_balance")(2, decay=1)
