"""VQGAN's adaptive weight against its formula, and on the last shared layer of a model."""

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies


def weights(norms, present=None, n_tasks=None, **hyperparameters):
    strategy = strategies.get("vqgan")(n_tasks or len(norms), **hyperparameters)
    present = np.arange(len(norms)) if present is None else np.array(present)
    return strategy.weights(np.diag(np.square(norms)), np.ones(len(norms)), present)


def test_the_ratio_of_the_norms_limited_and_scaled():
    assert weights([3.0, 2.0]).tolist() == [1, 1.5]
    assert weights([3.0, 1e-5], preference=(7, 0.8)).tolist() == [1, 0.8 * 1e4]
    assert weights([3.0, 2.0, 6.0], reference=2, preference=(0.5, 1, 1)) == pytest.approx([1, 3, 1])
    assert weights([3.0, 1e-5], limit=100).tolist() == [1, 100]


def test_it_does_not_depend_on_the_scale():
    """The authors' 1e-4 would make it 0.0099 here."""
    assert weights([3e-6, 3e-6]).tolist() == [1, 1]


def test_no_gradient_in_the_layer_and_no_reference():
    assert weights([3.0, 2.0, 0.0], preference=(1, 1, 0.25)).tolist() == [1, 1.5, 0.25]
    assert weights([0.0, 2.0]).tolist() == [1, 0]
    assert weights([3.0, 2.0], present=[1, 2], n_tasks=3, preference=(1, 2, 3)).tolist() == [2, 3]


def test_on_the_last_shared_layer_and_all_that_the_losses_reach():
    torch.manual_seed(0)
    first, last = nn.Linear(4, 5).double(), nn.Linear(5, 3).double()
    judge = nn.Linear(3, 1).double()
    model = nn.ModuleList([first, last, judge])
    balancer = Balancer("vqgan", ["pixels", "gan"], model, preference=(1, 0.5))
    x, goal = torch.randn(8, 4).double(), torch.randn(8, 3).double()
    image = last(torch.tanh(first(x)))
    losses = {"pixels": 1e3 * (image - goal).square().mean(), "gan": -judge(image).mean()}
    every = [*first.parameters(), *last.parameters(), judge.weight]
    grads = [
        torch.autograd.grad(loss, every, retain_graph=True, materialize_grads=True)
        for loss in losses.values()
    ]
    norms = [torch.cat([g.flatten() for g in grad[2:4]]).norm() for grad in grads]
    balancer(losses).backward()
    for param, a, b in zip(every, *grads, strict=True):
        assert torch.allclose(param.grad, a + 0.5 * norms[0] / norms[1] * b, rtol=1e-9)


@pytest.mark.parametrize("wrong", [{"reference": 2}, {"limit": 0}, {"preference": (-1, 1)}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("vqgan")(2, **wrong)
