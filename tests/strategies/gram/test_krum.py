"""Krum by hand."""

import numpy as np
import pytest

from tests.strategies.helpers import weigh


def test_krum():
    jacobian = [[1, 0], [1.2, 0], [0.8, 0.1], [1, 0.3], [-50, 30]]
    assert weigh("krum", jacobian, n_byzantine=1).tolist() == [1, 0, 0, 0, 0]  # .04 + .05, next .05 + .08
    selected = weigh("krum", jacobian, n_byzantine=1, n_selected=4)
    assert selected == pytest.approx([0.25, 0.25, 0.25, 0.25, 0])
    assert weigh("krum", np.ones((4, 2))) == pytest.approx([0.25] * 4)
