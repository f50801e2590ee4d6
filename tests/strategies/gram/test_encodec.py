"""EnCodec's balancer against the paper's equation 5, written out, and at the output of a decoder."""

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies


def by_the_paper(norms, preference, total, decay):
    """Weights of the last of several steps, from norms [steps, T]: sums over the past, term by term."""
    last = len(norms) - 1
    out = []
    for i, p in enumerate(preference):
        mean = sum(decay ** (last - t) * norms[t][i] for t in range(last + 1))
        mean /= sum(decay ** (last - t) for t in range(last + 1))
        out.append(total * p / sum(preference) / mean)
    return out


@pytest.mark.parametrize("decay", [0.0, 0.9, 0.999, 1.0])
def test_weights_follow_the_equation(decay):
    norms = np.random.default_rng(0).uniform(0.01, 9, (6, 3))
    preference = (1.0, 4.0, 0.5)
    strategy = strategies.get("encodec")(3, preference=preference, total_norm=2.0, decay=decay)
    for n in range(6):
        found = strategy.weights(np.diag(norms[n] ** 2), np.ones(3), np.arange(3))
        assert found == pytest.approx(by_the_paper(norms[: n + 1], preference, 2.0, decay), rel=1e-12)


def test_the_shares_are_what_the_gradients_have_whatever_their_units():
    strategy = strategies.get("encodec")(3, preference=(1, 2, 5))
    norms = np.array([1e-6, 3.0, 1e6])
    assert strategy.weights(np.diag(norms**2), np.ones(3), np.arange(3)) * norms == pytest.approx(
        [1 / 8, 2 / 8, 5 / 8]
    )


def test_an_absent_task_waits_and_the_others_share_the_whole():
    strategy = strategies.get("encodec")(3, decay=0.5)
    strategy.weights(np.diag([1.0, 4.0, 9.0]), np.ones(3), np.arange(3))
    found = strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.array([0, 2]))
    assert found == pytest.approx([0.5 / ((0.5 + 2) / 1.5), 0.5 / ((1.5 + 1) / 1.5)])
    assert strategy.norms.count.tolist() == [1.5, 1, 1.5]


def test_a_gradient_that_was_always_zero_has_no_weight():
    strategy = strategies.get("encodec")(2)
    assert strategy.weights(np.diag([4.0, 0.0]), np.ones(2), np.arange(2)).tolist() == [0.25, 0]
    assert strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.arange(2))[1] == pytest.approx(1.0, rel=2e-3)


def test_at_a_decoder_s_output():
    """The gradient of each loss at x is scaled to its share of 1, and goes back through the decoder."""
    torch.manual_seed(1)
    decoder = nn.Linear(4, 6).double()
    z, goal = torch.randn(8, 4).double(), torch.randn(8, 6).double()
    balancer = Balancer(
        "encodec", ["wave", "mel"], decoder, gradients="features", features=decoder, preference=(1, 3)
    )
    x = decoder(z)
    losses = {"wave": (x - goal).abs().mean(), "mel": 1e5 * (x.cumsum(1) - goal).square().mean()}
    at_x = [torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses.values()]
    pulled = sum(share * g / g.norm() for share, g in zip((0.25, 0.75), at_x, strict=True))
    expected = torch.autograd.grad(x, decoder.weight, pulled, retain_graph=True)[0]
    balancer(losses).backward()
    assert torch.allclose(decoder.weight.grad, expected, rtol=1e-9)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"total_norm": 0}, "total_norm should be a number above 0"),
        ({"decay": 1.1}, "decay should be a number from 0 to 1"),
        ({"preference": [1]}, "preference should have 2 numbers"),
    ],
)
def test_bad_hyperparameters_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        strategies.get("encodec")(2, **wrong)
