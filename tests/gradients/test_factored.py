"""Gradients kept as factors: the Gramian of the plain computation, whatever the model is made of."""

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.gradients import factored, graph
from tests.gradients.kinds import (
    KINDS,
    LSTM,
    Attention,
    Cell,
    Convolution,
    Embedding,
    Penalised,
    Plain,
    Probe,
    T,
    Tied,
    Turned,
    assert_gram,
    build,
    losses_of,
    plainly,
)
from tests.toys import assert_same, gradients_of, names


@pytest.fixture
def forced(monkeypatch, mode):
    """Keep every weight's factors that can be kept, and take their Gramian in one way only."""
    if mode in ("closed", "formed"):
        monkeypatch.setattr(factored, "_faster", lambda *arguments: True)
        monkeypatch.setattr(factored, "_closed", lambda *arguments: 0 if mode == "closed" else 1 << 60)
        return "auto"
    return mode


@pytest.mark.parametrize("mode", ["auto", "rows", "gramian", "closed", "formed"])
@pytest.mark.parametrize("kind", KINDS)
def test_gramian_and_gradients_are_those_of_the_plain_computation(kind, mode, forced):
    model, twin = build(kind), build(kind)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    for step in range(2):
        model.zero_grad()
        gram, gradients = plainly(twin, step)
        balancer(losses_of(model, step)).backward()
        assert_gram(balancer.strategy.seen, gram)
        assert_same(gradients_of(model), gradients, 2e-6)


@pytest.mark.parametrize("mode", ["closed", "formed"])
@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_incoming_factor_and_accumulation(mode, scale, forced):
    model, twin = build(Tied), build(Tied)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    expected = {}
    for step in range(2):
        balancer.backward(losses_of(model, step), gradient=torch.tensor(scale))
        for name, gradient in plainly(twin, step)[1].items():
            expected[name] = gradient * scale + expected.get(name, 0)
    assert_same(
        {k: v / scale for k, v in gradients_of(model).items()}, {k: v / scale for k, v in expected.items()}
    )


def planned(losses, params, all_of_them):
    losses = list(losses)
    return factored.plan(graph.Graph(losses, lambda *_: None), len(losses), params, all_of_them)


FACTORED = {
    Plain: {"trunk.0.weight", "trunk.2.weight"},
    Tied: {"again.weight", "matrix"},
    Cell: {"cell.weight_ih", "cell.weight_hh"},
    Embedding: {"embed.weight", "padded.weight"},
    Attention: {"up.weight", "attention.in_proj_weight", "attention.out_proj.weight"},
    LSTM: set(),
    Convolution: set(),
    Penalised: {"trunk.4.weight"},
    Turned: {"up.weight"},
}


@pytest.mark.parametrize("mode", ["closed"])
@pytest.mark.parametrize("kind", FACTORED)
def test_which_weights_can_stay_factors(kind, forced):
    model = build(kind)
    named = [(n, p) for n, p in model.named_parameters() if not n.startswith("heads")]
    plan = planned(losses_of(model).values(), [p for _, p in named], True)
    assert {named[k][0] for k in plan} == FACTORED[kind]


def test_choice_follows_the_cost():
    """Few samples and a wide layer: factors; many samples and a narrow one: rows."""

    def chosen(n, width):
        layer = nn.Linear(width, width)
        z = layer(torch.randn(n, width))
        return bool(planned([z.sum(), z.square().sum()], [layer.weight], False))

    assert chosen(16, 256) and not chosen(4096, 32)
    wide = nn.Linear(8, 4096)
    z = wide(torch.randn(200, 8))
    both = [z.sum(), z.square().sum()]
    assert not planned(both, [wide.weight], True)  # D is larger than the gradient
    table = nn.Embedding(1000, 4)
    few, many = table(torch.arange(9)), table(torch.zeros(4000, dtype=torch.long))
    assert planned([few.sum(), few.sum()], [table.weight], False)
    assert not planned([many.sum(), many.sum()], [table.weight], False)


@pytest.mark.parametrize("mode", ["closed"])
def test_no_weight_gradient_is_formed_but_the_weighted_one(forced):
    """The passes ask autograd for no gradient of a weight whose gradients stay factors."""
    model = build(Plain)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    asked = []
    original = torch.autograd.grad

    def spy(outputs, inputs, *args, **kwargs):
        asked.append([i for i in inputs if isinstance(i, torch.Tensor)])
        return original(outputs, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", spy)
        balancer.backward(losses_of(model))
    assert len(asked) == T
    assert all(p.dim() == 1 for wanted in asked for p in wanted)


@pytest.mark.parametrize("mode", ["closed", "formed"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [Plain, Tied, Attention])
def test_autocast(kind, dtype, forced):
    """The layers' own products are in low precision, the Gramian of what they give is not."""
    model, twin = build(kind), build(kind)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    with torch.autocast("cpu", dtype):
        losses = losses_of(model)
        balancer.backward({k: v.float() for k, v in losses.items()})
        other = Balancer(Probe, names(T), twin, gradients="rows")
        other.backward({k: v.float() for k, v in losses_of(twin).items()})
    expected = other.strategy.seen
    norms = np.sqrt(np.diag(expected))
    assert (np.abs(balancer.strategy.seen - expected) <= 0.02 * np.outer(norms, norms)).all()
    for name, gradient in gradients_of(twin).items():
        found = gradients_of(model)[name]
        assert found.dtype == torch.float32
        assert (found - gradient).norm() <= 0.02 * gradient.norm(), name


@pytest.mark.parametrize("mode", ["closed", "formed"])
def test_samples_that_cancel(forced):
    """Sums over samples fifty times smaller than their terms: the factors keep the accuracy of rows."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(64, 64, bias=False)])
    half, mix = torch.randn(16, 64), torch.randn(T, 16, 64).repeat(1, 2, 1)
    x = torch.cat([half, -half + 0.02 * torch.randn(16, 64)])
    rows = [(m.double().T @ x.double()).flatten() for m in mix]
    exact = torch.stack(rows) @ torch.stack(rows).T
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    z = model[0](x)
    balancer.backward({f"t{i}": (z * m).sum() for i, m in enumerate(mix)})
    assert_gram(balancer.strategy.seen, exact.numpy())


def test_graph_walk_finds_every_use_once():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    z = layer(layer(x))
    behind = graph.Graph([z.sum(), z.square().sum()], lambda *_: None)
    found = graph.uses(behind, [layer.weight, layer.bias])
    assert list(found) == [0] and [use.kind for use in found[0]] == ["linear", "linear"]
