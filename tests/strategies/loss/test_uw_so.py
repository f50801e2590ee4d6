"""UW-SO: the softmax of inverse losses."""

import numpy as np
import pytest

from tests.strategies.helpers import LOSSES, loss_weights, make


@pytest.mark.parametrize(
    ("temperature", "expected"),
    [
        (2, (0.536489, 0.253419, 0.210092)),
        (20, (0.352329, 0.326871, 0.320799)),
        (1e9, (1 / 3, 1 / 3, 1 / 3)),
        (1e-9, (1, 0, 0)),
    ],
)
def test_uw_so(temperature, expected):
    value, weights = loss_weights(make("uw_so", 3, temperature=temperature))
    assert weights == pytest.approx(expected, abs=1e-6)
    assert value == pytest.approx(np.dot(expected, LOSSES), abs=1e-5)


def test_uw_so_inverse_beyond_the_largest_number():
    assert loss_weights(make("uw_so", 3, temperature=1e-9), (1e-308, 1e-308, 1.0))[1].tolist() == [
        0.5,
        0.5,
        0,
    ]
