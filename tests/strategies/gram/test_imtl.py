"""IMTL: loss scales learned, scaled gradients combined."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import make


def test_imtl_learns_loss_scales_and_combines_scaled_gradients():
    strategy = make("imtl", 3)
    gram, losses = np.diag([1.0, 4.0, 9.0]), np.array([0.5, 2.0, 8.0])
    strategy.weights(gram, losses, np.arange(len(losses)))
    assert strategy.s.grad.tolist() == [-0.5, 1, 7]
    strategy.s.data = torch.tensor([0.0, math.log(0.5), math.log(0.125)], dtype=torch.float64)
    trunk, heads = strategy.weights(gram[1:, 1:], losses[1:], np.array([1, 2]))
    assert heads == pytest.approx([0.5, 0.125])
    assert strategy.s.grad.tolist() == pytest.approx([0, 0, 0])
    # Scaled norms 1 and 3/8, so a = (3/11, 8/11).
    assert trunk == pytest.approx([0.5 * 3 / 11, 0.125 * 8 / 11])
