"""CAGrad against a grid."""

import numpy as np
import pytest

from tests.strategies.helpers import direction, pairs


def test_cagrad_of_two_meets_a_fine_grid():
    x = np.linspace(0, 1, 20001)
    for g in pairs(60):
        mean = g.mean(axis=0)
        for c in (0.2, 0.5, 0.9):
            d = direction("cagrad", g, c=c)
            combined = np.outer(x, g[0]) + np.outer(1 - x, g[1])
            best = (combined @ mean + c * np.linalg.norm(mean) * np.linalg.norm(combined, axis=1)).min()
            assert np.linalg.norm(d - mean) == pytest.approx(c * np.linalg.norm(mean), rel=1e-9)
            size = np.abs(g @ mean).max()
            assert -1e-9 * size <= best - (g @ d).min() <= 1e-6 * size
