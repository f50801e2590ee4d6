"""FairGrad: orthogonal gradients, and what heads get."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.helpers import B, direction, weigh


def test_fairgrad_of_case_b_to_four_digits():
    assert direction("fairgrad", B) == pytest.approx((0.5151, 1.3696), abs=5e-5)


def test_fairgrad_of_orthogonal_gradients():
    norms = np.array([1e-3, 0.1, 1.0, 40.0])
    for alpha in (0.2, 0.5, 1.0, 2.0, 10.0):
        expected = norms ** (-2 * alpha / (alpha + 1))
        assert weigh("fairgrad", np.diag(norms), alpha=alpha) == pytest.approx(expected, rel=1e-9)
        assert weigh("fairgrad", np.diag(norms[:2]), alpha=alpha) == pytest.approx(expected[:2], rel=1e-9)


def test_fairgrad_leaves_heads_their_plain_gradient():
    """As its authors' code. With trunk gradients next to opposed the weights are far above 1."""
    trunk = torch.tensor([1.0, 0.0], requires_grad=True)
    one, two = (torch.tensor(s, requires_grad=True) for s in (1.0, -1.0))
    balancer = Balancer("fairgrad", ["a", "b"])
    balancer({"a": one * (trunk[0] + 0.01 * trunk[1]), "b": two * trunk[0]}).backward()
    assert min(w.item() for w in balancer.weights.values()) > 10
    assert (one.grad.item(), two.grad.item()) == (1, 1)
