"""The trimmed mean."""

import numpy as np
import pytest
import torch

from mtlweights import strategies
from tests.strategies.jacobian.helpers import first, near


def test_trimmed_mean_by_hand():
    jacobian = [(1, 10), (2, 3), (3, 5), (4, 7), (100, 1)]
    assert first("trimmed_mean", jacobian) == near((3, 5))
    assert first("trimmed_mean", jacobian, trim=2) == near((3, 5))
    assert first("trimmed_mean", jacobian, trim=0) == near((22, 5.2))
    assert first("trimmed_mean", jacobian, trim=0.2) == near((3, 5))
    assert first("trimmed_mean", jacobian, trim=0.19) == near((22, 5.2))


@pytest.mark.parametrize(("m", "trim", "b"), [(10, 0.3, 3), (100, 0.29, 29), (4, 1, 1), (5, 2, 2), (2, 1, 0)])
def test_trimmed_mean_number_left_out(m, trim, b):
    jacobian = np.random.default_rng(0).normal(size=(m, 5))
    expected = [np.mean(sorted(column)[b : m - b]) for column in jacobian.T]
    assert first("trimmed_mean", jacobian, trim=trim) == near(expected)


def test_trimmed_mean_leaves_one_or_two_of_the_tasks_present():
    strategy = strategies.get("trimmed_mean")(9, trim=4)
    for m in (4, 5):
        rows = torch.randn(m, 7)
        found = strategy.direction(rows, torch.ones(m), np.arange(m))
        assert torch.allclose(found, rows.sort(0).values[1:-1].mean(0) if m == 4 else rows.median(0).values)


def test_trimmed_mean_of_scipy():
    from scipy.stats import trim_mean

    jacobian = np.random.default_rng(3).normal(size=(20, 30))
    for share in (0.0, 0.1, 0.25, 0.45):
        assert first("trimmed_mean", jacobian, trim=share) == near(trim_mean(jacobian, share, axis=0))
