"""IMTL-L and its optimum."""

import pytest
import torch

from tests.strategies.helpers import LOSSES, loss_weights, make


def test_imtl_l_and_its_optimum():
    strategy = make("imtl_l", 3)
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.log_scale)[0].tolist() == pytest.approx([-0.5, 1, 7])
    with torch.no_grad():
        strategy.log_scale.copy_(-torch.log(torch.tensor(LOSSES)))
    assert loss_weights(strategy)[1] == pytest.approx([2, 0.5, 0.125])
