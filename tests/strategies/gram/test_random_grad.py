"""RGW: one draw a step."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import make


def test_random_gradient_weighting_draws_once_per_step():
    strategy = make("random_grad", 3)
    draws = []
    for step in range(500):
        strategy.step.fill_(step)
        draws.append(strategy.weights(np.eye(3), np.ones(3), np.arange(3)))
        assert (draws[-1] == strategy.weights(np.eye(3), np.ones(3), np.arange(3))).all()
    logs = np.log(draws)
    contrast = logs[:, 0] - logs[:, 1]  # a difference of two standard normals
    assert abs(contrast.mean()) < 0.2
    assert contrast.std() == pytest.approx(math.sqrt(2), rel=0.1)
    part = strategy.weights(np.eye(2), np.ones(2), np.array([0, 2]))
    assert part[0] / part[1] == pytest.approx(draws[-1][0] / draws[-1][2])
