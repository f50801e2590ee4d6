"""gradients="features": the Gramian at the shared representation."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mtlweights import Balancer
from tests.gradients.kinds import (
    LSTM,
    BatchNorm,
    Partly,
    Plain,
    Probe,
    T,
    assert_gram,
    build,
    inputs,
    losses_of,
)
from tests.toys import assert_same, gradients_of, names


def at_features(model, seed=1):
    """Gramian at the heads' input, and the gradients it leads to."""
    torch.manual_seed(seed)
    x = inputs(seed=seed)
    h = model.encode(x)
    losses = [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(model.heads)]
    rows = torch.stack(
        [torch.autograd.grad(loss, h, retain_graph=True)[0].flatten().double() for loss in losses]
    )
    weights = Probe(T).weights((rows @ rows.T).numpy(), None, np.arange(T))
    model.zero_grad()
    sum(w * loss for w, loss in zip(weights, losses, strict=True)).backward()
    gradients = gradients_of(model)
    for i, head in enumerate(model.heads):
        for name, _ in head.named_parameters():
            gradients[f"heads.{i}.{name}"] /= weights[i]
    return (rows @ rows.T).numpy(), gradients


@pytest.mark.parametrize("given", ["module", "tensor"])
@pytest.mark.parametrize("kind", [Plain, BatchNorm])
def test_features(kind, given):
    model, twin = build(kind), build(kind)
    module = model.trunk if given == "module" else None
    balancer = Balancer(Probe, names(T), model, gradients="features", features=module)
    for step in range(2):
        model.zero_grad()
        gram, gradients = at_features(twin, step)
        if given == "module":
            balancer(losses_of(model, step)).backward()
        else:
            x = inputs(seed=step)
            h = model.encode(x)
            each = [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(model.heads)]
            balancer.backward(dict(zip(names(T), each, strict=True)), features=h)
        assert_gram(balancer.strategy.seen, gram)
        assert_same(gradients_of(model), gradients, 2e-6)


def test_first_tensor_of_a_module_s_output_is_the_representation():
    model, twin = build(LSTM), build(LSTM)
    balancer = Balancer(Probe, names(T), model, gradients="features", features=model.lstm)
    balancer(losses_of(model)).backward()
    torch.manual_seed(1)
    x = inputs(seed=1)
    h = twin.lstm(x["sequence"])[0]
    each = [F.cross_entropy((i + 1) * head(h.mean(1)), x["y"][:, i]) for i, head in enumerate(twin.heads)]
    rows = torch.stack(
        [torch.autograd.grad(loss, h, retain_graph=True)[0].flatten().double() for loss in each]
    )
    assert_gram(balancer.strategy.seen, (rows @ rows.T).numpy())


def test_features_equal_rows_where_the_trunk_only_turns_the_gradient():
    """With one sample and an orthonormal trunk input the two Gramians are the same up to a factor."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"trunk": nn.Linear(5, 6, bias=False), "heads": nn.ModuleList(nn.Linear(6, 1) for _ in range(T))}
    )
    x, found = F.normalize(torch.randn(1, 5)), []
    for mode in ("rows", "features"):
        features = model["trunk"] if mode == "features" else None
        balancer = Balancer(Probe, names(T), model, gradients=mode, features=features)
        h = model["trunk"](x)
        balancer.backward({f"t{i}": head(h).square().mean() for i, head in enumerate(model["heads"])})
        found.append(balancer.strategy.seen)
    assert_gram(*found)


def test_a_pass_without_gradient_does_not_take_the_place_of_the_step_s_representation():
    model = build(Plain)
    balancer = Balancer(Probe, names(T), model, gradients="features", features=model.trunk)
    losses = losses_of(model)
    with torch.no_grad():
        model.trunk(inputs(seed=5)["x"])
    balancer.backward(losses)
    gram, _ = at_features(build(Plain))
    assert_gram(balancer.strategy.seen, gram)


def test_features_that_are_missing_or_bypassed():
    model = build(Partly)
    balancer = Balancer(Probe, names(T), model, gradients="features")
    with pytest.raises(ValueError, match=r"needs the shared representation of this step: name its module"):
        balancer.backward(losses_of(model))
    bypassed = Balancer(Probe, names(T), model, gradients="features", features=model.extra)
    with pytest.raises(ValueError, match="loss of 't0' does not pass through the representation"):
        bypassed.backward(losses_of(model))
    stale = Balancer(Probe, names(T), model, gradients="features", features=model.trunk)
    stale.backward(losses_of(model))
    with torch.no_grad():
        model.trunk(inputs()["x"])
    with pytest.raises(ValueError, match="needs the shared representation"):
        stale.backward({"t0": model.heads[0](torch.ones(1, 6)).sum()})


class Graphed(torch.autograd.Function):
    """Of the name that torch.cuda.make_graphed_callables gives its captured graphs."""

    @staticmethod
    def forward(ctx, weight, x):
        ctx.save_for_backward(x)
        return x @ weight.T

    @staticmethod
    def backward(ctx, gradient):
        return gradient.T @ ctx.saved_tensors[0], None


def captured(strategy, **options):
    """The balancer, the losses of two heads on a captured layer, and what all of them are."""
    torch.manual_seed(0)
    trunk, after = nn.Linear(4, 6, bias=False), nn.Tanh()
    heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in "ab"})
    options = {"features": after, **options} if options else options
    balancer = Balancer(strategy, ["a", "b"], nn.ModuleList([trunk, after, heads]), **options)

    def losses(layer):
        z = after(layer(torch.ones(5, 4)))
        return {task: (head(z) - ord(task)).square().mean() for task, head in heads.items()}

    return balancer, losses, trunk


@pytest.mark.parametrize("strategy", ["pcgrad", "gradnorm", "graddrop"])
def test_two_passes_through_a_captured_graph_are_refused(strategy):
    balancer, losses, trunk = captured(strategy)
    with pytest.raises(ValueError, match=r"can go backward once per forward, and \w+ needs a pass per task"):
        balancer(losses(lambda x: Graphed.apply(trunk.weight, x)))
    assert trunk.weight.grad is None


@pytest.mark.parametrize(
    ("strategy", "options"),
    [("uw", {}), ("pcgrad", {"gradients": "features"}), ("gradnorm", {"gradients": "features"})],
)
def test_one_pass_through_a_captured_graph_is_as_any(strategy, options):
    """In the later steps, too: gradnorm measures at the features in each of them."""
    found = []
    for replayed in (True, False):
        balancer, losses, trunk = captured(strategy, **options)
        optimizer = torch.optim.SGD(trunk.parameters(), lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            layer = (lambda x, w=trunk.weight: Graphed.apply(w, x)) if replayed else trunk
            balancer(losses(layer)).backward()
            optimizer.step()
        found.append(trunk.weight.grad.clone())
    torch.testing.assert_close(*found)
