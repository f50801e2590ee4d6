"""Methods for one task per step: the gradients of the others are remembered."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer
from tests.strategies.helpers import direction
from tests.strategies.jacobian.helpers import Run, near, random_jacobians


def test_running_pcgrad_against_a_plain_loop():
    run, s = Run("running_pcgrad", 4, rounds=0.5), np.zeros(7)
    met = []
    for k, (g,) in enumerate(random_jacobians(20, m=1)):
        p = g - min(g @ s, 0) / (s @ s or 1) * s
        met.append(g @ s < 0)
        assert run.step([g], present=[k % 4]) == near(p)
        s = 0.5 * s + p  # 1 - 1 / (0.5 * 4)
        assert run.kept["sum"].numpy()[0] == near(s)
    assert 5 < sum(met) < 15
    assert Run("running_pcgrad", 1).strategy.decay == Run("running_pcgrad", 9, rounds=0.1).strategy.decay == 0
    with pytest.raises(ValueError, match="rounds should be a number above 0"):
        Run("running_pcgrad", 2, rounds=0)


def test_running_pcgrad_with_all_tasks_is_pcgrad_and_nothing_is_against_the_sum():
    (first,) = random_jacobians(1)
    run = Run("running_pcgrad", 3)
    assert run.step(first) == near(direction("pcgrad", first))
    s = run.kept["sum"].numpy()[0].astype(float)
    for _ in range(5):
        against = random_jacobians(1, seed=3)[0] - 3 * s
        assert min(against @ s) < 0
        assert run.step(against, commit=False) @ s >= -1e-5 * np.linalg.norm(against) * np.linalg.norm(s)


def authors(steps, n_tasks, b1=0.9, b2=0.999):
    """The algorithm, dense, from (tasks, gradients) that start with all of them."""
    momenta, counts, last, second, out = np.zeros((n_tasks, 7)), np.zeros(n_tasks), 0.0, 0.0, []
    for t, (tasks, gradients) in enumerate(steps, 1):
        for i, g in zip(tasks, gradients, strict=True):
            momenta[i], counts[i] = b1 * momenta[i] + (1 - b1) * g, counts[i] + 1
        hats = momenta / (1 - b1**counts)[:, None]
        units = hats / np.linalg.norm(hats, axis=1, keepdims=True)
        best = np.linalg.pinv(units) @ np.ones(n_tasks)
        best /= np.linalg.norm(best)
        d = (hats @ best).sum() * best
        now = d * (1 - b1**t)
        pseudo = (now - b1 * last) / (1 - b1)
        last, second = now, b2 * second + (1 - b2) * pseudo**2
        out.append(d / np.sqrt(second / (1 - b2**t)))
    return out


def test_m_config_is_the_authors_algorithm():
    (every,), rest = random_jacobians(1), random_jacobians(15, m=1, seed=1)
    steps = [(range(3), every), *(([k % 3], g) for k, g in enumerate(rest))]
    run = Run("m_config", 3)
    for (tasks, gradients), expected in zip(steps, authors(steps, 3), strict=True):
        assert run.step(gradients, present=list(tasks)) == near(expected, rel=1e-4)
    with pytest.raises(ValueError, match="betas should be two numbers"):
        Run("m_config", 2, betas=(0.9, 1.0))


def test_m_config_before_all_tasks_were_seen_is_of_those_that_were():
    one, two = random_jacobians(2, m=1)
    run = Run("m_config", 50)
    assert run.step(one, present=[7]) == near(np.sign(one[0]))
    both = run.step(two, present=[30])
    run = Run("m_config", 2)
    run.step(one, present=[0])
    assert both == near(run.step(two, present=[1])) and np.isfinite(both).all()


class Wide(nn.Module):
    """A regression per task, T of them."""

    def __init__(self, n_tasks):
        super().__init__()
        self.trunk, self.heads = nn.Linear(6, 5), nn.ModuleList(nn.Linear(5, 1) for _ in range(n_tasks))

    def forward(self, x, task):
        return self.heads[task](self.trunk(x).tanh())[:, 0]


@pytest.mark.parametrize(("name", "rows"), [("running_pcgrad", 1), ("m_config", 60)])
def test_many_tasks_one_a_step(name, rows):
    """What is kept, a checkpoint in mid-training, no reminder, and it learns."""
    torch.manual_seed(0)
    tasks, x = [f"t{i}" for i in range(60)], torch.randn(32, 6)
    targets = torch.randn(60, 6) @ x.T / 3 + x[:, 0]

    def train(model, balancer, steps):
        optimizer, seen = torch.optim.SGD(model.parameters(), lr=0.05), []
        for k in steps:
            i = 7 * k % 60
            loss = (model(x, i) - targets[i]).square().mean()
            seen.append(float(loss.detach()))
            optimizer.zero_grad()
            balancer({tasks[i]: loss}).backward()
            assert all(head.weight.grad is None for j, head in enumerate(model.heads) if j != i)
            optimizer.step()
        return seen

    model = Wide(60)
    balancer = Balancer(name, tasks, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = train(model, balancer, range(60))
    saved = {k: v.clone() for k, v in model.state_dict().items()}, balancer.state_dict()
    kept = saved[1]["rows"]
    assert {k: len(v["trunk.weight"]) for k, v in kept.items()}[next(iter(kept))] == rows
    assert all(
        name.startswith("trunk") for by in kept.values() for name in by if not name.startswith("heads.0.")
    )
    last = train(model, balancer, range(60, 240))[-60:]
    assert np.mean(last) < 0.9 * np.mean(first)
    twin = Wide(60)
    twin.load_state_dict(saved[0])
    again = Balancer(name, tasks, twin)
    again.load_state_dict(saved[1])
    train(twin, again, range(60, 240))
    for key, value in model.state_dict().items():
        assert torch.equal(value, twin.state_dict()[key])
    with pytest.raises(ValueError, match="should be floating point, "):
        again.load_state_dict(
            {**saved[1], "rows": {k: {n: torch.cat([p, p]) for n, p in v.items()} for k, v in kept.items()}}
        )
