"""Reptile and first-order MAML, against the algorithms written out by hand; and what they are for."""

import copy
import math

import pytest
import torch
from torch import nn

from mtlweights.train.meta import adapt, meta_step


def loss(run, batch):
    x, y = batch
    return (run(x).squeeze(-1) - y).square().mean()


def model(width=8):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))


def episode(seed, k=6):
    """A sine of its own amplitude and phase."""
    draw = torch.Generator().manual_seed(seed)
    amplitude, phase = 1 + torch.rand(2, generator=draw) * torch.tensor([2.0, math.pi])
    x = torch.rand(2, k, 1, generator=draw) * 6 - 3
    y = amplitude * (x.squeeze(-1) + phase).sin()
    return (x[0], y[0]), (x[1], y[1])


def by_hand(start, episodes, method, steps, lr):
    """The mean gradient, and the mean loss at the adapted weights, with ordinary modules and backward."""
    rows, values = [], []
    for support, query in episodes:
        inner = copy.deepcopy(start)
        for _ in range(steps):
            inner.zero_grad()
            loss(inner, support).backward()
            with torch.no_grad():
                for p in inner.parameters():
                    p -= lr * p.grad
        values.append(float(loss(inner, query if method == "fomaml" else support).detach()))
        if method == "fomaml":
            inner.zero_grad()
            loss(inner, query).backward()
            rows.append([p.grad for p in inner.parameters()])
        else:
            pairs = zip(start.parameters(), inner.parameters(), strict=True)
            rows.append([(p - q).detach() / (steps * lr) for p, q in pairs])
    return [torch.stack(same).mean(0) for same in zip(*rows, strict=True)], sum(values) / len(values)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_a_step_is_the_papers(method, together):
    start, episodes = model(), [episode(k) for k in range(3)]
    expected, after = by_hand(start, episodes, method, 3, 0.05)
    before = [p.detach().clone() for p in start.parameters()]
    optimizer = torch.optim.SGD(start.parameters(), lr=0.5)
    options = {"method": method, "steps": 3, "lr": 0.05, "together": together}
    assert meta_step(start, loss, episodes, optimizer, **options) == pytest.approx(after, rel=1e-4)
    for p, was, row in zip(start.parameters(), before, expected, strict=True):
        torch.testing.assert_close(p.detach(), was - 0.5 * row, rtol=1e-4, atol=1e-6)
        assert p.grad is None and not torch.equal(p.detach(), was)


def test_every_task_draws_dropout_of_its_own():
    start = nn.Sequential(nn.Linear(1, 200, bias=False), nn.Dropout(0.5))
    nn.init.ones_(start[0].weight)
    row = (torch.ones(1, 1), torch.ones(1))
    optimizer = torch.optim.SGD(start.parameters(), lr=1.0)
    meta_step(start, lambda run, batch: run(batch[0]).sum(), [(row, row)] * 2, optimizer, steps=1)
    dropped = (1 - start[0].weight.detach()).round().unique().tolist()
    assert dropped == [0, 1, 2], "by both, by one, by none"


def test_adapting_is_gradient_descent_on_a_copy():
    start, (support, _) = model(), episode(1)
    before = [p.detach().clone() for p in start.parameters()]
    found = adapt(start, loss, support, steps=2, lr=0.1)
    inner = copy.deepcopy(start)
    for _ in range(2):
        inner.zero_grad()
        loss(inner, support).backward()
        with torch.no_grad():
            for p in inner.parameters():
                p -= 0.1 * p.grad
    for p, q, r, was in zip(found.parameters(), inner.parameters(), start.parameters(), before, strict=True):
        torch.testing.assert_close(p, q, rtol=1e-5, atol=1e-7)
        assert torch.equal(r, was) and not torch.equal(p, r)


def test_frozen_parameters_and_buffers_stay():
    start = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).eval()
    start[0].requires_grad_(False)
    before = copy.deepcopy(start.state_dict())
    optimizer = torch.optim.SGD([p for p in start.parameters() if p.requires_grad], lr=0.1)
    meta_step(start, loss, [episode(0), episode(1)], optimizer)
    same = {name: torch.equal(value, before[name]) for name, value in start.state_dict().items()}
    assert same["0.weight"] and same["1.running_mean"] and not same["2.weight"]


@pytest.mark.parametrize("method", ["reptile", "fomaml"])
def test_a_new_task_is_learnt_from_six_examples(method):
    start = model(32)
    tests = [episode(1000 + k) for k in range(20)]

    def after():
        found = [loss(adapt(start, loss, support, steps=5, lr=0.05), query) for support, query in tests]
        return float(torch.stack(found).detach().mean())

    scratch = after()
    optimizer = torch.optim.Adam(start.parameters(), lr=0.01)
    for k in range(150):
        tasks = [episode(8 * k + j) for j in range(8)]
        meta_step(start, loss, tasks, optimizer, method=method, steps=5, lr=0.05)
    assert after() < 0.7 * scratch


@pytest.mark.parametrize(
    ("options", "message"),
    [({"method": "maml"}, "did you mean 'fomaml'"), ({"steps": 0}, "found 1 and 0")],
)
def test_refused(options, message):
    start = model()
    with pytest.raises(ValueError, match=message):
        meta_step(start, loss, [episode(0)], torch.optim.SGD(start.parameters(), lr=0.1), **options)
