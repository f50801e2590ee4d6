"""COSMOS: the ray, the draws, the unit of the losses."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import loss_weights, make


def test_cosmos():
    assert loss_weights(make("cosmos", 3, penalty=0))[1] == pytest.approx([1 / 3] * 3)
    ray = (1.0, 2.0, 3.0)
    value, weights = loss_weights(make("cosmos", 3, preference=ray, penalty=2), ray)
    assert value == pytest.approx(14 - 2)
    assert weights == pytest.approx(ray)  # the cosine is 1, its maximum


def test_cosmos_draws_a_preference_per_step():
    strategy = make("cosmos", 3, concentration=2.0)
    draws = []
    for step in range(2000):
        strategy.step.fill_(step)
        draws.append(strategy.draw().numpy())
    draws = np.array(draws)
    assert draws.sum(1) == pytest.approx(1, abs=1e-6)
    # Dirichlet(2, 2, 2): mean 1/3, variance (1/3)(2/3) / 7
    assert draws.mean(0) == pytest.approx(1 / 3, abs=0.016)
    assert draws.var(0) == pytest.approx(2 / 63, rel=0.13)
    assert (strategy.draw().numpy() == draws[-1]).all()
    cosine = 1 / math.sqrt(3 * (draws[-1] ** 2).sum())
    assert loss_weights(strategy, (1.0, 1.0, 1.0))[0] == pytest.approx(1 - cosine)
    strategy.seed = 1
    assert (strategy.draw().numpy() != draws[-1]).all()


def weights_in_float32(name, losses):
    losses = torch.tensor(losses, dtype=torch.float32, requires_grad=True)
    (found,) = torch.autograd.grad(make(name, 2).combine(losses, None), losses)
    return found.double().numpy()


@pytest.mark.parametrize("scale", [1e-24, 1e-12])
def test_the_cosine_of_cosmos_does_not_depend_on_the_unit(scale):
    """d cos / d l_i = (r_i - cos |r| l_i / |l|) / (|r| |l|): the penalty's weight is one over the unit."""
    found = weights_in_float32("cosmos", [3 * scale, scale])
    assert found * scale == pytest.approx([0.0447213595, -0.1341640786], rel=1e-5)
