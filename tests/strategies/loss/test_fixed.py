"""Fixed weights: used as given, or refused."""

import numpy as np
import pytest

from tests.strategies.helpers import LOSSES, loss_weights, make


@pytest.mark.parametrize(
    ("n_tasks", "alpha", "expected"),
    [
        (3, None, [1, 1, 1]),
        (3, [0, 2.5, 1], [0, 2.5, 1]),
        (2, 0.3, [0.3, 0.7]),
        (2, 1, [1, 0]),
        (1, [4], [4]),
    ],
)
def test_fixed_uses_the_weights_as_given(n_tasks, alpha, expected):
    losses = LOSSES[:n_tasks]
    value, weights = loss_weights(make("fixed", n_tasks, alpha=alpha), losses)
    assert weights == pytest.approx(expected)
    assert value == pytest.approx(np.dot(expected, losses))


@pytest.mark.parametrize(
    ("n_tasks", "alpha", "message"),
    [
        (3, [1, 2], "alpha should have 3 numbers, one per task, found 2"),
        (3, 0.3, "alpha should have 3 numbers, one per task, found one number"),
        (2, [[1, 2]], "alpha should have 2 numbers"),
        (2, 1.3, "between 0 and 1"),
        (2, [1, -1], "at least 0"),
        (2, float("nan"), "finite"),
        (2, [1, float("inf")], "finite"),
        (2, "half", "alpha should be numbers, found 'half'"),
    ],
)
def test_fixed_refuses(n_tasks, alpha, message):
    with pytest.raises(ValueError, match=message):
        make("fixed", n_tasks, alpha=alpha)
