"""Weights by validation scores."""

import numpy as np
import pytest

from tests.strategies.helpers import loss_weights, make


def validation_weights(*scores, **hyperparameters):
    strategy = make("validation", len(scores[0]), **hyperparameters)
    for row in scores:
        strategy.end_epoch(np.full(len(row), np.nan), np.array(row, dtype=np.float64))
    return loss_weights(strategy, [1.0] * len(scores[0]))[1]


def test_validation_weights_are_powers_of_the_shortfall():
    shortfall = np.array([1 - 0.21 / 1.05, 1 - 0.84 / 1.05])  # 0.8, 0.2
    expected = 2 * shortfall**2 / (shortfall**2).sum()
    assert validation_weights((0.21, 0.84)) == pytest.approx(expected)
    assert expected == pytest.approx([32 / 17, 2 / 17])
    assert validation_weights((0.5, 0.5, 0.5)) == pytest.approx([1, 1, 1])
    assert validation_weights((0, 0.5), gamma=1, margin=1) == pytest.approx([8 / 7, 6 / 7])


def test_validation_is_ones_until_scored_and_follows_the_last_score():
    strategy = make("validation", 2)
    strategy.end_epoch(np.ones(2), None)
    assert (loss_weights(strategy, [1.0, 1.0])[1] == 1).all()
    assert validation_weights((0.9, 0.1), (0.3, 0.6)) == pytest.approx(validation_weights((0.3, 0.6)))


def test_validation_never_starves_a_task():
    done = validation_weights((1, 0))
    assert done == pytest.approx([2 / 442, 2 * 441 / 442], rel=1e-5)  # a = (1 / 21^2, 1)
    assert validation_weights((7, -3)) == pytest.approx(done)  # clipped to [0, 1]
    assert validation_weights((1, 1)) == pytest.approx([1, 1])


def test_validation_task_without_score():
    nan = float("nan")
    never = validation_weights((nan, 0.21, 0.84))
    assert never == pytest.approx([1, 32 / 17, 2 / 17])
    assert validation_weights((0.21, 0.5), (nan, 0.84)) == pytest.approx([32 / 17, 2 / 17])
    assert validation_weights((nan, nan)) == pytest.approx([1, 1])
