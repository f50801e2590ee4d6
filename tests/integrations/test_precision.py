"""Plain loops in bf16, in fp16 with a GradScaler, and with clipping."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from tests.toys import assert_same_state, batch, losses_of, names, toy

ALL = strategies.names()
HUGE = 2.0**126
pytestmark = pytest.mark.filterwarnings("ignore:(AdaTask|MConFIG) scales its own updates")
#: weights that do not exist are not compared
WEIGHTLESS = {name for name in ALL if issubclass(strategies.get(name), strategies.JacobianStrategy)}


def build(name, dtype=torch.float32, n=3, optimizer=torch.optim.SGD, lr=0.05, **options):
    model = toy(n, dtype=dtype)
    balancer = Balancer(name, names(n), model)
    made = optimizer(model.parameters(), lr=lr, **options)
    balancer.attach(made)
    return model, balancer, made


def send(balancer, losses, scaler=None):
    """A step's backward passes on ``losses()``: one, or one per batch that the strategy stacks."""
    parts = balancer.strategy.batches
    for _ in range(parts):
        loss = balancer(losses()) / parts
        (loss if scaler is None else scaler.scale(loss)).backward()


def under(dtype, model, data):
    """The losses of a forward pass in autocast."""
    with torch.autocast("cpu", dtype):
        return losses_of(model, data)


def flat(model):
    return torch.cat([p.grad.flatten().double() for p in model.parameters() if p.grad is not None])


def close(found, expected, share):
    """As vectors: half precision loses small entries, not the direction or the length."""
    assert found.isfinite().all()
    assert (found - expected).norm() <= share * expected.norm()


@pytest.fixture(scope="module")
def exact():
    """name -> gradient and weights of the first step in full precision."""
    out = {}
    for name in ALL:
        model, balancer, _ = build(name)
        send(balancer, partial(losses_of, model, batch()))
        out[name] = flat(model), {k: v.item() for k, v in balancer.weights.items()}
    return out


@pytest.mark.parametrize("name", ALL)
def test_bf16_autocast(name, exact):
    model, balancer, _ = build(name)
    send(balancer, partial(under, torch.bfloat16, model, batch()))
    # the choice of a sign in half precision differs where two gradients nearly cancel
    close(flat(model), exact[name][0], 0.5 if name in WEIGHTLESS else 0.05)
    for task, weight in balancer.weights.items():
        assert weight.item() == pytest.approx(exact[name][1][task], rel=0.1, abs=0.02)


@pytest.mark.parametrize("name", ALL)
def test_pure_bf16_parameters(name, exact):
    model, balancer, optimizer = build(name, torch.bfloat16, lr=0.01)  # EPO and PBI diverge at 0.05
    fresh = balancer.state_dict()["strategy"]
    losses = partial(losses_of, model, batch(dtype=torch.bfloat16))
    send(balancer, losses)
    assert {p.grad.dtype for p in model.parameters() if p.grad is not None} == {torch.bfloat16}
    close(flat(model), exact[name][0], 0.6 if name in WEIGHTLESS else 0.1)
    assert all(w.dtype in (torch.float32, torch.float64) for w in balancer.weights.values())
    before = sum(losses().values()).item()
    for _ in range(20):
        optimizer.step()
        optimizer.zero_grad()
        send(balancer, losses)
    assert sum(losses().values()).item() < before
    state = balancer.state_dict()["strategy"]
    assert int(state["step"]) == 20
    for key, value in state.items():  # NaN stands for what the strategy has not been told yet
        assert (value.isfinite() | fresh[key].isnan()).all(), key


def autocast_steps(name, scale, clip, steps=3):
    """fp16 autocast with a scaler: parameters after the steps, norms before and after clipping, weights."""
    model, balancer, optimizer = build(name)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    norms, weights = [], []
    for step in range(steps):
        optimizer.zero_grad()
        send(balancer, partial(under, torch.float16, model, batch(seed=1 + step)), scaler)
        weights.append([w.item() for w in balancer.weights.values()])
        scaler.unscale_(optimizer)
        norms.append((nn.utils.clip_grad_norm_(model.parameters(), clip).item(), flat(model).norm().item()))
        scaler.step(optimizer)
        scaler.update()
    assert scaler.get_scale() == scale
    balancer.state_dict()
    assert int(balancer.strategy.step) == steps
    return torch.cat([p.detach().flatten() for p in model.parameters()]), norms, weights


@pytest.mark.parametrize("name", ALL)
def test_fp16_result_does_not_depend_on_the_scale(name, exact):
    norm = exact[name][0].norm().item()
    expected, norms, weights = autocast_steps(name, 1024.0, norm / 20)
    assert norms[0][0] == pytest.approx(norm, rel=0.2 if name in WEIGHTLESS else 0.02)
    assert all(before > norm / 20 and after == pytest.approx(norm / 20, rel=1e-4) for before, after in norms)
    for scale in (1.0, 64.0):
        found, other, theirs = autocast_steps(name, scale, norm / 20)
        torch.testing.assert_close(found, expected, rtol=0.02, atol=5e-3)
        assert [n for n, _ in other] == pytest.approx([n for n, _ in norms], rel=0.02)
        torch.testing.assert_close(torch.tensor(theirs), torch.tensor(weights), rtol=0.02, atol=0.01)


@pytest.mark.parametrize("name", ALL)
def test_full_range_of_scales_in_full_precision(name):
    """1 to 65536 are powers of two: nothing but the last bits may move."""
    out = []
    for scale in (1.0, 256.0, 65536.0):
        model, balancer, optimizer = build(name)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        for step in range(3):
            optimizer.zero_grad()
            send(balancer, partial(losses_of, model, batch(seed=step)), scaler)
            scaler.step(optimizer)
            scaler.update()
        out.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    for found in out[1:]:
        torch.testing.assert_close(found, out[0], rtol=1e-5, atol=1e-6)


def spike(param):
    """Zero, with a gradient that is not finite: that of the loss may be scaled away by the strategy."""
    zero = (param - param.detach()).sum()
    zero.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    return zero


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("where", ["head", "trunk", "scale"])
@pytest.mark.parametrize("name", ALL)
def test_an_overflow_is_a_skipped_step(name, where, fused):
    model, balancer, optimizer = build(name, optimizer=torch.optim.Adam, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

    def losses(overflow):
        with torch.autocast("cpu", torch.float16, enabled=where == "scale"):
            losses = losses_of(model, batch())
        if overflow and where == "head":
            losses["t1"] = losses["t1"] + spike(model.heads[1].bias)
        if overflow and where == "trunk":
            losses["t0"] = losses["t0"] + spike(model.encoder[0].bias)
        return losses

    def step(overflow):
        optimizer.zero_grad()
        if overflow and where == "scale":
            scaler.update(HUGE)
        send(balancer, partial(losses, overflow), scaler)
        scaler.step(optimizer)
        scaler.update()

    step(False)
    before = copy.deepcopy(balancer.state_dict()), [p.detach().clone() for p in model.parameters()]
    step(True)
    assert scaler.get_scale() == (HUGE if where == "scale" else 1024.0) / 2
    assert_same_state(balancer.state_dict(), before[0])
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before[1], strict=True))
    scaler.update(1024.0)
    step(False)
    balancer.state_dict()
    assert int(balancer.strategy.step) == 2
