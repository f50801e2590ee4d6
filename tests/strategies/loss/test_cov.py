"""CoV: statistics of loss ratios."""

import numpy as np
import pytest

from tests.strategies.helpers import feed, loss_weights


def test_cov_first_steps_and_statistics():
    steps = ((4.0, 1.0), (2.0, 1.0), (1.0, 1.5))
    for n, expected in ((1, [0.5, 0.5]), (2, [0.5, 0.5]), (3, [1, 0])):
        strategy, weights = feed("cov", *steps[:n])
        assert weights == pytest.approx(expected)
    assert strategy.mean_ratio.tolist() == pytest.approx([0.6111, 1.1667], abs=5e-5)
    assert strategy.squares.tolist() == pytest.approx([0.2407, 0.1667], abs=5e-5)
    assert strategy.mean_loss.tolist() == pytest.approx([2.3333, 1.1667], abs=5e-5)
    variation = np.sqrt(np.array([0.2407, 0.1667]) / 3) / [0.6111, 1.1667]
    assert loss_weights(strategy, (1.0, 1.0))[1] == pytest.approx(variation / variation.sum(), abs=1e-4)


def test_cov_does_not_see_the_scale_and_constant_losses_are_equal():
    steps = [np.array(s) for s in ((4.0, 1.0), (2.0, 0.9), (1.0, 1.5), (0.7, 1.1))]
    scaled = feed("cov", *[s * [1e5, 1e-5] for s in steps])[1]
    assert scaled == pytest.approx(feed("cov", *steps)[1], rel=1e-4)
    assert feed("cov", *[(3.0, 0.2)] * 5)[1] == pytest.approx([0.5, 0.5])


def test_cov_task_with_too_few_steps_has_its_even_share():
    strategy, _ = feed("cov", (4.0, 1.0, 1.0), (2.0, 2.0, 1.0))
    strategy.count[2] = 1
    weights = loss_weights(strategy, (1.0, 1.0, 1.0))[1]
    # rho: (1, 1/2) and (1, 2), so std / mean = (1/4) / (3/4) and (1/2) / (3/2)
    assert weights == pytest.approx([1 / 3] * 3)
