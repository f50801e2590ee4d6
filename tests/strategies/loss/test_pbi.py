"""PBI: the boundary intersection, in any unit."""

import math

import pytest
import torch

from tests.strategies.helpers import loss_weights, make


def test_pbi():
    assert loss_weights(make("pbi", 3, theta=0))[0] == pytest.approx(6.062178)
    value, weights = loss_weights(make("pbi", 2, preference=[3, 4], ideal=[1, 0]), (7.0, 8.0))
    assert value == pytest.approx(10)
    assert weights == pytest.approx([0.6, 0.8])  # on the ray: the kink of d2
    _, weights = loss_weights(make("pbi", 2, theta=5), (1.0, 3.0))
    assert weights == pytest.approx([(1 - 5) / math.sqrt(2), (1 + 5) / math.sqrt(2)])


def weights_in_float32(name, losses):
    losses = torch.tensor(losses, dtype=torch.float32, requires_grad=True)
    (found,) = torch.autograd.grad(make(name, 2).combine(losses, None), losses)
    return found.double().numpy()


@pytest.mark.parametrize("scale", [1e-24, 1e-12, 1e12, 210e9**2])
def test_the_weights_of_pbi_do_not_depend_on_the_unit(scale):
    assert weights_in_float32("pbi", [3 * scale, scale]) == pytest.approx([3 * 2**0.5, -2 * 2**0.5])
