"""IGB: shares of the improvable gap."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import end_epoch, loss_weights, make


def test_igb():
    strategy = make("igb", 3)
    for losses in ((9, 9, 9), (4, 4, 4)):
        value, weights = loss_weights(strategy, losses)
        assert weights == pytest.approx(1 / np.array(losses))
        end_epoch(strategy, losses)
    value, weights = loss_weights(strategy, (2.0, 8.0, 8.0))
    assert weights * (2, 8, 8) == pytest.approx([0.301103, 1.349449, 1.349449], abs=1e-6)
    assert value == pytest.approx(0.301103 * math.log(2) + 2 * 1.349449 * math.log(8), abs=1e-5)
