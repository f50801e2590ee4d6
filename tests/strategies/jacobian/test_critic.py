"""The critic of `contrastive`."""

import math

import numpy as np
import pytest
import torch

from mtlweights.strategies.jacobian.contrastive import info_nce


def test_info_nce_of_two_tasks_by_hand():
    """Rows (1, 0) and (1/2, 1), b = 1: guesses e / (1 + e) and 1 / (1 + exp(-1/2)) of the own key."""
    similarity = torch.tensor([[1.0, 0.0], [0.5, 1.0]], dtype=torch.float64)
    slope, curvature = info_nce(similarity, torch.tensor(1.0, dtype=torch.float64))
    first, second = math.e / (1 + math.e), 1 / (1 + math.exp(-0.5))
    assert float(slope) == pytest.approx(-(1 - first + 0.5 * (1 - second)) / 2)
    assert float(curvature) == pytest.approx((first * (1 - first) + 0.25 * second * (1 - second)) / 2)
    assert float(slope) == pytest.approx(-0.228856, abs=1e-6)


def test_info_nce_derivatives_against_differences():
    x = np.random.default_rng(0).normal(size=(4, 4))

    def loss(b):
        return (np.log(np.exp(b * x).sum(1)) - b * np.diag(x)).mean()

    slope, curvature = info_nce(torch.from_numpy(x), torch.tensor(0.7, dtype=torch.float64))
    assert float(slope) == pytest.approx((loss(0.7 + 1e-4) - loss(0.7 - 1e-4)) / 2e-4, rel=1e-6)
    assert float(curvature) == pytest.approx(
        (loss(0.7 + 1e-3) - 2 * loss(0.7) + loss(0.7 - 1e-3)) / 1e-6, rel=1e-4
    )
