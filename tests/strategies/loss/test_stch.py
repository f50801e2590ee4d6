"""Smooth Tchebycheff: between the maximum and its bound."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import loss_weights, make


def test_stch():
    assert loss_weights(make("stch", 3))[0] == pytest.approx(2.863401)


@pytest.mark.parametrize("mu", [1e-3, 0.1, 1, 10])
def test_stch_is_between_the_maximum_and_its_bound(mu):
    preference, ideal, losses = np.array([0.5, 2, 1]), np.array([-1, 0, 3]), np.array([1.0, 0.7, 5.0])
    options = {"preference": preference.tolist(), "ideal": ideal.tolist()}
    value, weights = loss_weights(make("stch", 3, mu=mu, **options), losses)
    largest = (preference * (losses - ideal)).max()
    assert largest - 1e-6 <= value <= largest + mu * math.log(3) + 1e-6
    if mu == 1e-3:
        assert weights == pytest.approx([0, 0, 1])


def test_stch_of_terms_that_overflow_over_mu():
    losses = torch.tensor([1e30, 2e30, 3e30], requires_grad=True)
    value = make("stch", 3, mu=1e-10).combine(losses)
    assert value.item() == pytest.approx(1e30)
    assert torch.autograd.grad(value, losses)[0].tolist() == pytest.approx([0, 0, 1 / 3])
