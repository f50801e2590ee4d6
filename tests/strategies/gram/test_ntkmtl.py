"""NTKMTL against its formula: the trace over the diagonal, to the power of the exponent."""

import numpy as np
import pytest

from mtlweights import strategies


@pytest.mark.parametrize("exponent", [0.0, 0.25, 0.5, 1.0])
def test_the_trace_over_the_diagonal(exponent):
    rows = np.random.default_rng(0).normal(size=(4, 7)) * [[1], [1e-3], [20], [5]]
    gram = rows @ rows.T
    trace = sum(gram[k, k] for k in range(4))
    found = strategies.get("ntkmtl")(4, exponent=exponent).weights(gram, np.ones(4), np.arange(4))
    assert found == pytest.approx([(trace / gram[i, i]) ** exponent for i in range(4)], rel=1e-12)


def test_by_default_the_sum_of_unit_gradients_at_the_length_of_all():
    rows = np.random.default_rng(1).normal(size=(3, 5)) * [[1e-6], [1], [1e6]]
    found = strategies.get("ntkmtl")(3).weights(rows @ rows.T, np.ones(3), np.arange(3)) @ rows
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    assert found == pytest.approx(np.linalg.norm(rows) * units.sum(axis=0), rel=1e-9)


def test_a_zero_gradient_is_left_out():
    found = strategies.get("ntkmtl")(3).weights(np.diag([9.0, 0.0, 16.0]), np.ones(3), np.arange(3))
    assert found == pytest.approx([5 / 3, 0, 5 / 4])


def test_a_bad_exponent_is_refused():
    with pytest.raises(ValueError, match="exponent should be a number from 0 to 1, found 2"):
        strategies.get("ntkmtl")(2, exponent=2)
