"""Ways to the task gradients under compilation, copies and windows."""

import copy

import pytest
import torch
from torch import nn

from mtlweights import Balancer
from tests.gradients.kinds import Plain, T, build, losses_of
from tests.toys import assert_same, batch, gradients_of, names, toy
from tests.toys import losses_of as toy_losses


@pytest.mark.parametrize("mode", ["auto", "gramian", "features"])
def test_held_weights_and_copies(mode):
    """every= between two Gramians, and a deep copy of the model with its balancer."""
    model = build(Plain)
    features = model.trunk if mode == "features" else None
    balancer = Balancer("mgda", names(T), model, gradients=mode, features=features, every=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.balancer = balancer
    losses_of(model)  # a representation with its graph is at hand, and is no part of the copy
    twin = copy.deepcopy(model)
    other = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(5):
        for m, opt in ((model, optimizer), (twin, other)):
            opt.zero_grad()
            m.balancer(losses_of(m, step)).backward()
            opt.step()
    assert_same(gradients_of(model), gradients_of(twin), 0)
    assert model.balancer.strategy is not twin.balancer.strategy


def test_compiled_trunk_and_eager_heads():
    """Zeros where an eager graph has None, and linear layers whose gradients could stay factors."""
    found = []
    for compiled in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(8, 256), nn.ReLU())
        run = torch.compile(trunk, backend="aot_eager") if compiled else trunk
        heads = nn.ModuleList([nn.Linear(256, 256) for _ in range(2)])
        model = nn.ModuleList([trunk, heads])
        h = run(torch.randn(4, 8))
        Balancer("mgda", ["t0", "t1"], model)(
            {f"t{i}": heads[i](h).square().mean() for i in range(2)}
        ).backward()
        found.append(gradients_of(model))
    assert_same(found[1], found[0], 1e-5)


def test_a_window_over_a_compiled_model_learns_what_is_shared():
    """Tasks are met in the first micro-batch, their rows are recorded when the window closes."""
    torch.compiler.reset()
    model, twin = toy(3), toy(3)
    compiled = torch.compile(model, backend="aot_eager")
    for one, run in ((model, compiled), (twin, twin)):
        balancer = Balancer("mgda", names(3), one, accumulation="window", accumulation_steps=2)
        for seed in range(2):
            (balancer(toy_losses(run, batch(seed=seed))) / 2).backward()
    found, right = gradients_of(model), gradients_of(twin)
    keys = [key for key, gradient in right.items() if gradient is not None]
    assert_same({key: found[key] for key in keys}, {key: right[key] for key in keys}, 1e-5)
