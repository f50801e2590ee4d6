"""Uncertainty weighting: both forms, and the optimum."""

import math

import pytest
import torch

from tests.strategies.helpers import LOSSES, loss_weights, make


def uw_gradient(strategy, losses=LOSSES):
    value = strategy.combine(torch.tensor(losses))
    return value.item(), torch.autograd.grad(value, strategy.log_variance)[0].tolist()


def test_uw_regression_form():
    value, gradient = uw_gradient(make("uw", 3))
    assert value == pytest.approx(5.25)
    assert gradient == pytest.approx([0.25, -0.5, -3.5])
    assert loss_weights(make("uw", 3))[1] == pytest.approx([0.5] * 3)


def test_uw_classification_form():
    value, gradient = uw_gradient(make("uw", 3, forms="classification"))
    assert value == pytest.approx(10.5)
    assert gradient == pytest.approx([0, -1.5, -7.5])  # 1/2 - l
    assert loss_weights(make("uw", 3, forms=["classification", "regression", "classification"]))[
        1
    ] == pytest.approx([1, 0.5, 1])


@pytest.mark.parametrize(("form", "shift"), [("regression", 0.0), ("classification", math.log(2))])
def test_uw_optimum(form, shift):
    strategy = make("uw", 3, forms=form)
    with torch.no_grad():
        strategy.log_variance.copy_(torch.log(torch.tensor(LOSSES)) + shift)
    assert uw_gradient(strategy)[1] == pytest.approx([0, 0, 0], abs=1e-6)
    value, weights = loss_weights(strategy)
    assert weights == pytest.approx([1, 0.25, 0.0625])  # 1 / (2 l)
    assert value == pytest.approx(2.539721 + 1.5 * shift)
