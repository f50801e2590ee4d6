"""The geometric mean of the losses."""

import pytest

from tests.strategies.helpers import LOSSES, loss_weights, make


def test_geometric_losses_contribute_alike():
    value, weights = loss_weights(make("geometric", 3))
    assert value == pytest.approx(2)
    assert weights * LOSSES == pytest.approx([2 / 3] * 3)


def test_geometric_mean_of_many_small_losses():
    value, weights = loss_weights(make("geometric", 40), [1e-12] * 40)  # the product is 1e-480
    assert value == pytest.approx(1e-12)
    assert weights == pytest.approx([1 / 40] * 40)
