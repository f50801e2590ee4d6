"""SLAW: the spread of each loss."""

import numpy as np
import pytest

from tests.strategies.helpers import feed


def test_slaw():
    steps = ((1.0, 10.0), (1.2, 8.0), (0.8, 14.0))
    assert (feed("slaw", steps[0])[1] == 1).all()
    strategy, weights = feed("slaw", *steps)
    assert strategy.variance.sqrt().tolist() == pytest.approx([0.163299, 2.494438], abs=2e-6)
    scaled = feed("slaw", *[(a, 10 * b) for a, b in steps])[1]
    assert scaled[1] / scaled[0] == pytest.approx(weights[1] / weights[0] / 10)


def test_slaw_averages_exponentially_and_does_not_lose_digits():
    losses = np.random.default_rng(0).uniform(1, 2, (20, 1))
    strategy, _ = feed("slaw", *losses, rate=0.25)
    mean = square = 0.0
    for t, (loss,) in enumerate(losses, 1):
        rate = max(1 / t, 0.25)
        mean, square = mean + rate * (loss - mean), square + rate * (loss**2 - square)
    assert strategy.variance.item() == pytest.approx(square - mean**2, rel=1e-4)
    flat = feed("slaw", (1000.0, 1.0), (1000.25, 1.25), (999.75, 0.75))[1]
    assert flat == pytest.approx([1, 1], rel=1e-6)


def test_slaw_constant_and_unseen_tasks():
    constant = feed("slaw", *[(1.0, 2.0)] * 3)[1]
    assert constant == pytest.approx([4 / 3, 2 / 3])  # the floor is relative
    assert feed("slaw", *[(1.0, 2.0, 0.0)] * 3)[1] == pytest.approx([4 / 3, 2 / 3, 1])
