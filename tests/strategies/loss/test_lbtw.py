"""LBTW: ratios to the first loss of an epoch."""

import numpy as np
import pytest

from tests.strategies.helpers import NAN, end_epoch, feed, loss_weights


def test_lbtw_follows_the_ratio_to_the_epochs_first_loss():
    strategy, weights = feed("lbtw", (3.0, 4.0, 5.0))
    assert (weights == 1).all()
    assert loss_weights(strategy, (1.5, 8.0), np.array([0, 1]))[1] == pytest.approx([2 / 3, 4 / 3])
    assert (feed("lbtw", (3, 4), (1, 9), alpha=0)[1] == 1).all()


def test_lbtw_starts_anew_with_each_epoch():
    strategy, _ = feed("lbtw", (3.0, 4.0), (1.0, 9.0))
    end_epoch(strategy, (2.0, NAN))
    weights = loss_weights(strategy, (1.0, 16.0))[1]  # ratios 1, and 4: task 1 was not seen
    assert weights == pytest.approx([2 / 3, 4 / 3])
