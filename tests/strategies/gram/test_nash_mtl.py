"""Nash-MTL: the length of its direction, and its bargain."""

import math

import numpy as np
import pytest

from tests.strategies.gram.helpers import of_every_rank
from tests.strategies.helpers import weigh


@pytest.mark.parametrize("n_tasks", [2, 3, 8, 40])
def test_nash_mtl_has_length_root_t_and_bargains(n_tasks):
    for jacobian in of_every_rank(n_tasks, 5):
        if jacobian.shape[1] > n_tasks:
            weights = weigh("nash_mtl", jacobian)
            assert weights * (jacobian @ (weights @ jacobian)) == pytest.approx(np.ones(n_tasks), rel=1e-6)
            assert np.linalg.norm(weights @ jacobian) == pytest.approx(math.sqrt(n_tasks), rel=1e-6)
