"""Ways to the task gradients under autocast, compilation, copies and windows."""

import copy

import pytest
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.gradients import task_gradients
from tests.gradients.kinds import Plain, Probe, T, assert_gram, build, losses_of
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


@pytest.mark.parametrize("mode", ["rows", "gramian"])
def test_products_are_in_full_precision_under_the_caller_s_autocast(mode):
    """Backward inside autocast, and float32 products set to low precision: the Gramian does not care."""
    found = []
    for low in (False, True):
        model = build(Plain)
        balancer = Balancer(Probe, names(T), model, gradients=mode)
        losses = losses_of(model)
        torch.set_float32_matmul_precision("medium" if low else "highest")
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                balancer(losses).backward()
            assert torch.get_float32_matmul_precision() == ("medium" if low else "highest")
            assert balancer.strategy.precision == ("highest", False)
        finally:
            torch.set_float32_matmul_precision("highest")
        found.append(balancer.strategy.seen)
    assert_gram(*found)


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


@pytest.mark.parametrize("batch", [1, 10, 1 << 20])
def test_many_parameters_are_combined_as_one_by_one(batch, monkeypatch):
    """As on a GPU: those that every row reaches, a part of them at a time, and the rest as ever."""
    monkeypatch.setattr(task_gradients, "GPUS", ("cpu",))
    monkeypatch.setattr(task_gradients, "BATCH", batch)
    torch.manual_seed(0)
    rows = [[torch.randn(k + 1, 3) for k in range(5)] for _ in range(3)]
    rows[1][2] = None
    weights, expected = [0.5, -2.0, 3.0], [list(row) for row in rows]
    found = task_gradients.combine_alike(rows, range(5), weights)
    assert set(found) == {0, 1, 3, 4}
    assert all(row[k] is None for row in rows for k in found)
    for k, part in found.items():
        torch.testing.assert_close(part, task_gradients.combine(expected, k, weights))
    assert task_gradients.combine_alike(expected, [2], weights) == {}
