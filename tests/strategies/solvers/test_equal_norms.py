"""Gradients of one length."""

import numpy as np
import pytest

from mtlweights.strategies.solvers import equal_norms


def test_every_gradient_takes_the_length_and_zero_stays_zero():
    norms = np.array([1e-150, 2.0, 0.0, 1e150])
    found = equal_norms(norms, 3.0)
    assert found[2] == 0
    assert (found * norms)[[0, 1, 3]] == pytest.approx([3, 3, 3])
    assert equal_norms(np.zeros(2), 1.0).tolist() == [0, 0]
