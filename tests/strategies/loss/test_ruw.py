"""Revised uncertainty weighting: the optimum, and sigma off zero."""

import pytest
import torch

from tests.strategies.helpers import LOSSES, make


def test_ruw_and_its_optimum():
    strategy = make("ruw", 3)
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.sigma)[0].tolist() == pytest.approx([0.5, -1, -7])
    with torch.no_grad():
        strategy.sigma.copy_(torch.tensor([0.640388, 1.618034, 4.828427]).sqrt())
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.sigma)[0].tolist() == pytest.approx([0, 0, 0], abs=1e-5)


def test_ruw_sigma_keeps_off_zero():
    strategy = make("ruw", 4)
    with torch.no_grad():
        strategy.sigma.copy_(torch.tensor([0.0, -1e-9, -0.5, 1e-9]))
    strategy.project(torch.tensor([True, True, True, False]))
    assert strategy.sigma.tolist() == pytest.approx([1e-3, -1e-3, -0.5, 1e-9])
