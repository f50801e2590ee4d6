"""Achievement: exponents by shortfall."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import NAN, loss_weights, make, scored


def test_achievement():
    """Shortfalls 1 and 0.2, so a = 1 and 0.04."""
    exponent = 1 / (1 + math.exp(-0.96))
    strategy = scored("achievement", (0.0, 0.84))
    value, weights = loss_weights(strategy, (2.0, 8.0))
    assert value == pytest.approx(2**exponent * 8 ** (1 - exponent))
    assert weights == pytest.approx([exponent * value / 2, (1 - exponent) * value / 8])
    assert loss_weights(strategy, (8.0,), np.array([1]))[1] == pytest.approx([1])


def test_achievement_is_the_geometric_mean_until_scored():
    strategy = make("achievement", 3)
    assert loss_weights(strategy)[1] == pytest.approx(loss_weights(make("geometric", 3))[1])
    strategy = scored("achievement", (0.5, NAN, 7), (0.9, NAN, NAN))
    assert strategy.score.tolist() == pytest.approx([0.54, NAN, 1], nan_ok=True)
