"""IMTL-G where the published formula ascends."""

import numpy as np
import pytest

from tests.strategies.helpers import weigh


def test_imtl_g_never_ascends_where_the_published_formula_does():
    """Sum-to-one weights (-1.733, 10.723, -7.990) have all projections at -0.1049."""
    jacobian = np.array([[-3.0, -3, 2], [-2, 1, 1], [-2, 2, 1]])
    assert weigh("imtl_g", jacobian) == pytest.approx([1.733, -10.723, 7.990], abs=1e-3)
