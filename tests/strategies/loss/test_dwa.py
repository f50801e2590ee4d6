"""DWA: ratios of epochs, temperature, tasks that were not seen."""

import numpy as np
import pytest

from tests.strategies.helpers import loss_weights, make


def dwa_weights(*epochs, **hyperparameters):
    strategy = make("dwa", len(epochs[0]), **hyperparameters)
    for means in epochs:
        strategy.end_epoch(np.array(means, dtype=np.float64), None)
    return loss_weights(strategy, [1.0] * len(epochs[0]))[1]


@pytest.mark.parametrize(("ratios", "expected"), [((0.5, 1), (0.875647, 1.124353)), ((0.7, 0.7), (1, 1))])
def test_dwa_ratios(ratios, expected):
    first = np.array([3.0, 0.01, 200.0])[: len(ratios)]  # the scale of each loss is of no matter
    weights = dwa_weights(first, first * ratios)
    assert weights == pytest.approx(expected, abs=2e-6)
    assert weights.sum() == pytest.approx(len(ratios))


def test_dwa_is_equal_in_the_first_two_epochs():
    assert (dwa_weights((3, 1)) == 1).all()
    assert (loss_weights(make("dwa", 3))[1] == 1).all()


def test_dwa_temperature():
    assert dwa_weights((1, 1), (0.5, 1), temperature=1e6) == pytest.approx([1, 1], abs=1e-5)
    assert dwa_weights((1, 1), (0.5, 1), temperature=0.5) == pytest.approx([0.537883, 1.462117], abs=2e-6)


def test_dwa_task_not_seen_keeps_its_history():
    nan = float("nan")
    assert dwa_weights((2, 4), (nan, 4), (1, 4)) == pytest.approx(dwa_weights((2, 4), (1, 4)))
    assert dwa_weights((2, 4), (1, 4), (nan, 4)) == pytest.approx(dwa_weights((2, 4), (1, 4)))
    assert (dwa_weights((2, nan), (1, nan), (0.5, nan))[1]) > 1  # no history counts as no change


def test_dwa_zero_losses_stay_finite():
    assert dwa_weights((0, 1), (0, 1)) == pytest.approx([1, 1])
    assert dwa_weights((0, 1), (2, 1)) == pytest.approx([1, 1])
    assert np.isfinite(dwa_weights((1e-30, 1), (1e6, 1))).all()
