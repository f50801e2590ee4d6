"""Losses that are 0 for long, or negative: over the whole registry."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from mtlweights.balancer.state.state import State
from mtlweights.testing.harness import Case, Harness
from tests.strategies.helpers import make

ALL = list(strategies.names())
LOSS_BASED = [name for name in ALL if issubclass(strategies.get(name), strategies.LossStrategy)]
REFUSED = [name for name in ALL if strategies.get(name).positive_losses]
PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


def play(name, size, first, steps):
    """Training in which task 0 has a loss and a gradient of ``size`` for some steps.

    Learned weights move at a rate of 1: a log scale that fell without end would leave float32 in 90 steps.
    """
    harness, rng = Harness(make(name, 3), torch.float32), np.random.default_rng(0)
    harness.state = State(harness.strategy, 1.0)
    for n in range(first + steps + 8):
        losses, jacobian = rng.uniform(0.5, 9, 3), rng.normal(size=(3, 6))
        if first <= n < first + steps:
            losses[0], jacobian[0] = size, size * jacobian[0]
        rows = rng.normal(size=(3, 6)) if "validate" in harness.strategy.hooks() else None
        yield (
            harness,
            harness.step(Case(f"step {n}", jacobian, np.float64(np.float32(losses)), validation=rows)),
        )
        if n % 8 == 7:
            harness.strategy.end_epoch(losses, np.array([0.1, 0.5, 0.9]))


@pytest.mark.parametrize("first", [0, 8])
@pytest.mark.parametrize("name", ALL)
def test_a_loss_that_stays_zero_does_no_harm(name, first):
    run = list(play(name, 0.0, first, 110))
    for _, result in run:
        assert np.isfinite(result.update).all()
        assert all(np.isfinite(w).all() for w in result.weights)
    harness, result = run[-1]
    for key, value in harness.strategy.state_dict().items():
        assert not torch.isinf(value).any() and (not value.dim() or value.abs().nan_to_num().max() < 1e6), key
    assert np.linalg.norm(result.update) < 1e3


@pytest.mark.parametrize("size", [1e-30, 1.2e-38, 1e-42])
@pytest.mark.parametrize("name", LOSS_BASED)
def test_a_loss_next_to_zero_leaves_all_finite(name, size):
    """1 / 1e-42 is beyond float32, and so is e^(-s) at the s that uncertainty weighting would learn."""
    run = list(play(name, size, 0, 110))
    for _, result in run:
        assert np.isfinite(result.update).all()
        assert all(np.abs(w).max() < 3e38 for w in result.weights)
    assert not any(torch.isinf(value).any() for value in run[-1][0].strategy.state_dict().values())


@pytest.mark.parametrize(("name", "state"), [("uw", "log_variance"), ("imtl", "s"), ("imtl_l", "log_scale")])
def test_a_log_scale_stays_where_its_loss_is_zero(name, state):
    before = None
    for n, (harness, _) in enumerate(play(name, 0.0, 8, 40)):
        if n == 8:
            before = getattr(harness.strategy, state)[0].item()
        if n == 47:
            # Adam has forgotten nothing yet: the row did not move at all
            assert getattr(harness.strategy, state)[0].item() == before


def test_a_learned_weight_whose_gradient_overflows_stays():
    """Loss and weight are finite, their product is not: the step is not, and s does not become NaN."""
    x = torch.tensor([1.0], requires_grad=True)
    balancer, optimizer = Balancer("imtl_l", ["a", "b"]), torch.optim.SGD([x], lr=0.0)
    with torch.no_grad():
        balancer.strategy.log_scale.fill_(1.0)
    balancer({"a": (3e38 * x).sum(), "b": x.sum()}).backward()
    optimizer.step()
    assert balancer.strategy.log_scale.tolist() == [1, 1] and not x.grad.isfinite().all()


def network():
    torch.manual_seed(0)
    return nn.ModuleDict({"trunk": nn.Linear(3, 4), "a": nn.Linear(4, 1), "b": nn.Linear(4, 1)})


def losses_of(model, lowered):
    torch.manual_seed(1)
    hidden, y = torch.tanh(model["trunk"](torch.randn(6, 3))), torch.randn(2, 6)
    found = {task: (model[task](hidden)[:, 0] - y[i]).square().mean() for i, task in enumerate("ab")}
    return {"a": found["a"], "b": found["b"] - lowered}


def step(balancer, model, lowered):
    for _ in range(balancer.strategy.batches):
        balancer(losses_of(model, lowered)).backward()


@pytest.mark.parametrize("name", ALL)
def test_a_negative_loss_is_trained_or_refused(name):
    model = network()
    balancer = Balancer(name, ["a", "b"], model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for lowered in (0.0, 0.0, 50.0):
        optimizer.zero_grad()
        if name in REFUSED and lowered:
            with pytest.raises(
                ValueError, match=r"needs losses of at least 0, found -4\d\.\d* for 'b': add a con"
            ):
                step(balancer, model, lowered)
            assert all(p.grad is None for p in model.parameters())
        else:
            step(balancer, model, lowered)
            assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in model.parameters())
            optimizer.step()
    assert int(balancer.strategy.step) == (2 if name in REFUSED else 3)


@pytest.mark.parametrize("name", REFUSED)
def test_rounding_below_zero_and_what_is_not_finite_are_no_negative_losses(name):
    model = network()
    exact = float(losses_of(model, 0.0)["b"].detach())
    step(Balancer(name, ["a", "b"], model), model, exact * (1 + 1e-7))
    for p in model.parameters():
        p.grad = None
    step(Balancer(name, ["a", "b"], model), model, torch.inf)
    assert not all(torch.isfinite(p.grad).all() for p in model.parameters())


def test_a_negative_loss_of_a_tensor_subclass_is_refused():
    class Named(torch.Tensor):
        pass

    one = torch.tensor([1.0], requires_grad=True).as_subclass(Named)
    with pytest.raises(ValueError, match="found -2 for 'b'"):
        Balancer("famo", ["a", "b"])({"a": one.sum(), "b": -2 * one.sum()})


def test_losses_on_a_device_are_read_seldom():
    weigher = Balancer("famo", ["a", "b"])._engine.weigher
    reads = []

    def tolist():
        reads.append(weigher.looks)
        return [1.0, 2.0]

    losses = SimpleNamespace(device=SimpleNamespace(type="cuda"), tolist=tolist)
    for _ in range(350):
        weigher.refuse_negative(SimpleNamespace(losses=losses, present=[0, 1]))
    assert reads == [1, 2, 3, 4, 100, 200, 300]
    weigher.strategy.positive_losses = False
    weigher.refuse_negative(SimpleNamespace(losses=losses, present=[0, 1]))
    assert len(reads) == 7


def test_the_page_names_the_strategies_that_refuse_negative_losses():
    line = next(
        x for x in PAGE.read_text(encoding="utf-8").split("\n\n") if x.startswith("**Negative losses.**")
    )
    assert set(REFUSED) == set(
        line.split("refused by ")[1].split("; and by")[0].replace("`", "").replace(",", " ").split()
    )


def test_a_negative_loss_keeps_its_weight_under_uw_and_gradnorm():
    """No scale and no rate is learned from one: s stays, and its ratio counts as 1."""
    loss = make("uw", 2)
    losses = torch.tensor([2.0, -3.0], requires_grad=True)
    value = loss.combine(losses)
    weights, scale = torch.autograd.grad(value, [losses, loss.log_variance])
    assert weights.tolist() == [0.5, 0.5] and scale[1] == 0 and scale[0] != 0
    norm = make("gradnorm", 2)
    for now in ([2.0, -3.0], [1.0, -4.0]):
        norm.weights(np.eye(2), np.array(now), np.arange(2))
    assert norm._relative_rate(np.array([1.0, -4.0]), np.arange(2)).tolist() == [0.5 / 0.75, 1 / 0.75]
