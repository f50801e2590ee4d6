"""Equal cosines."""

import numpy as np
import pytest

from mtlweights.strategies.solvers import cosines_and_norms, equal_cosines
from tests.strategies.solvers.helpers import awkward


@pytest.mark.parametrize("m", [2, 3, 8])
def test_equal_cosines_or_what_prevents_them(m):
    for jacobian in awkward(m, np.random.default_rng(m)):
        cosines, norms = cosines_and_norms(jacobian @ jacobian.T)
        x, cancelling = equal_cosines(cosines)
        assert cosines @ x + cancelling == pytest.approx(np.ones(m), abs=1e-4 if m == 8 else 1e-3)
        unit = jacobian / norms[:, None]
        assert np.linalg.norm(cancelling @ unit) <= 1e-5
