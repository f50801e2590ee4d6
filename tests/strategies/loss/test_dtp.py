"""DTP: averages of scores, kept to their range."""

import math

import pytest

from tests.strategies.helpers import NAN, loss_weights, scored


def test_dtp():
    weights = loss_weights(scored("dtp", (0.5, 0.9), gamma=1), (3, 3))[1]
    assert weights == pytest.approx((0.346574, 0.010536), abs=1e-6)


def test_dtp_averages_scores_and_keeps_to_its_range():
    strategy = scored("dtp", (0.5, NAN, 7, -3), (0.9, NAN, NAN, 0))
    assert strategy.indicator.tolist() == pytest.approx([0.54, NAN, 1, 0], nan_ok=True)
    weights = loss_weights(strategy, (1, 1, 1, 1))[1]
    assert weights == pytest.approx([-0.46 * math.log(0.54), 1, 0, -0.99 * math.log(0.01)], abs=1e-6)
