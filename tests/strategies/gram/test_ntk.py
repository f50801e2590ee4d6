"""NTK weights against autograd's own gradient of the root of a loss, and against whole kernels."""

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import strategies


def network():
    """Two sets of residuals of a small network: task -> [n], 9 and 5 points, 40 times apart."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).double()
    x, y = torch.randn(9, 2).double(), torch.randn(5, 2).double()
    return net, [40 * net(x)[:, 0] - 1, net(y)[:, 0] + 0.5]


def flat(grads):
    return torch.cat([g.flatten() for g in grads])


def weights(gram, losses):
    return strategies.get("ntk")(len(gram)).weights(
        np.asarray(gram), np.asarray(losses), np.arange(len(gram))
    )


def test_rates_are_the_squared_gradients_of_the_roots():
    net, residuals = network()
    losses = [r.square().mean() for r in residuals]
    rows = torch.stack([flat(torch.autograd.grad(x, net.parameters(), retain_graph=True)) for x in losses])
    roots = [
        flat(torch.autograd.grad(x.sqrt(), net.parameters(), retain_graph=True)).square().sum()
        for x in losses
    ]
    found = weights((rows @ rows.T).numpy(), [x.item() for x in losses])
    assert found == pytest.approx([(sum(roots) / t).item() for t in roots], rel=1e-9)


def test_with_one_point_per_task_it_is_the_trace_of_the_kernel():
    """Exactly the paper's ``Tr K / Tr K_ii``, and for more points at most each kernel's mean."""
    net, residuals = network()
    one = [r[:1] for r in residuals]
    kernels = [flat(torch.autograd.grad(r[0], net.parameters(), retain_graph=True)) for r in one]
    traces = [k.square().sum().item() for k in kernels]
    rows = torch.stack([2 * r[0] * k for r, k in zip(one, kernels, strict=True)]).detach()
    found = weights((rows @ rows.T).numpy(), [r[0].item() ** 2 for r in one])
    assert found == pytest.approx([sum(traces) / t for t in traces], rel=1e-9)
    for r in residuals:
        per_point = [flat(torch.autograd.grad(p, net.parameters(), retain_graph=True)) for p in r]
        rate = flat(torch.autograd.grad(r.square().mean().sqrt(), net.parameters(), retain_graph=True))
        assert rate.square().sum() <= sum(k.square().sum() for k in per_point) / len(r)


def test_tasks_at_rest_are_left_out():
    assert weights(np.diag([4.0, 0.0, 8.0]), [1.0, 1.0, 0.0]).tolist() == [1, 0, 0]
    assert weights(np.zeros((2, 2)), [0.0, 0.0]).tolist() == [0, 0]


def test_by_hand():
    """Rates 4 / (4 * 1) = 1 and 9 / (4 * 3) = 3/4."""
    assert weights(np.diag([4.0, 9.0]), [1.0, 3.0]) == pytest.approx([1.75, 7 / 3])
