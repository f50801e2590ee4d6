"""Agreement with TorchJD 0.18 on the strategies that look at losses alone."""

import math

import numpy as np
import pytest
import torch
from torchjd import scalarization

from mtlweights import Balancer
from tests.strategies.helpers import SCALES, T, make, weights_of


def drawn_losses(n_tasks, scale=1.0):
    rng = np.random.default_rng(n_tasks)
    for _ in range(4):
        yield torch.tensor(scale * rng.uniform(0.1, 3, n_tasks), dtype=torch.float32, requires_grad=True)


def preference(n_tasks):
    return torch.from_numpy(np.random.default_rng(n_tasks).uniform(0.2, 2, n_tasks)).float()


# name, our hyperparameters, their scalarizer, both for T tasks
SCALARS = [
    ("equal", lambda t: {}, lambda t: scalarization.Sum()),
    ("geometric", lambda t: {}, lambda t: scalarization.GeometricMean()),
    ("stch", lambda t: {"mu": 0.3}, lambda t: scalarization.STCH(0.3)),
    (
        "stch",
        lambda t: {"preference": preference(t).tolist(), "ideal": [0.05] * t},
        lambda t: scalarization.STCH(1.0, weights=preference(t), reference=torch.full([t], 0.05)),
    ),
    (
        "cosmos",
        lambda t: {"preference": preference(t).tolist(), "penalty": 2.0},
        lambda t: scalarization.COSMOS(2.0, weights=preference(t)),
    ),
    (
        "pbi",
        lambda t: {"preference": preference(t).tolist(), "ideal": [0.05] * t, "theta": 3.0},
        lambda t: scalarization.PBI(3.0, weights=preference(t), reference=torch.full([t], 0.05)),
    ),
    ("uw", lambda t: {}, scalarization.UW),
    ("imtl_l", lambda t: {}, scalarization.IMTLL),
    ("famo", lambda t: {}, scalarization.FAMO),
]


@pytest.mark.parametrize("n_tasks", T)
@pytest.mark.parametrize(("name", "hyperparameters", "scalarizer"), SCALARS)
def test_objectives_and_their_weights(name, hyperparameters, scalarizer, n_tasks):
    for scale in SCALES:
        for losses in drawn_losses(n_tasks, scale):
            ours, found = (
                make(name, n_tasks, **hyperparameters(n_tasks)).combine(losses),
                scalarizer(n_tasks)(losses),
            )
            assert ours.item() == pytest.approx(found.item(), rel=1e-4, abs=1e-5 * scale)
            expected = weights_of(found, losses)
            assert weights_of(ours, losses) == pytest.approx(
                expected, rel=1e-3, abs=2e-5 * float(np.abs(expected).max())
            )


@pytest.mark.parametrize(("name", "scalarizer"), [("uw", scalarization.UW), ("imtl_l", scalarization.IMTLL)])
def test_learned_weights_follow_the_same_path(name, scalarizer):
    sides = [make(name, 3), scalarizer(3)]
    optimizers = [torch.optim.Adam(side.parameters(), lr=0.05) for side in sides]
    for step in range(40):
        losses = torch.tensor([0.1, 1.0, 20.0]) * (1 + 0.5 * math.sin(step))
        weights = []
        for side, optimizer in zip(sides, optimizers, strict=True):
            point = losses.clone().requires_grad_()
            optimizer.zero_grad()
            (side.combine(point) if side is sides[0] else side(point)).backward()
            optimizer.step()
            weights.append(point.grad.numpy())
        assert weights[0] == pytest.approx(weights[1], rel=1e-4)
    assert weights[0][0] > 2 * weights[0][2]  # they did learn


def test_famo_follows_the_same_path():
    """Through the Balancer, whose Adam moves the logits; both see the same batch after each step."""
    scale = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([scale], lr=0.0)
    balancer = Balancer("famo", ["a", "b", "c"], gamma=1e-3).attach(optimizer)
    famo = scalarization.FAMO(3, lr=0.025, weight_decay=1e-3)
    for step in range(30):
        before = torch.tensor([0.5, 2.0, 8.0]) * (1.1 + math.sin(step))
        after = before * torch.tensor([0.9, 0.99, 0.5 + 0.4 * math.cos(step)])
        optimizer.zero_grad()
        balancer({name: scale * loss for name, loss in zip("abc", before, strict=True)}).backward()
        famo(before)
        optimizer.step()
        balancer.after_step(
            lambda after=after: {name: scale * loss for name, loss in zip("abc", after, strict=True)}
        )
        famo.update(after)
        logits = next(famo.parameters()).tolist()
        assert balancer.strategy.logits.tolist() == pytest.approx(logits, abs=1e-5)
    assert max(logits) - min(logits) > 0.3


def test_dwa_over_five_epochs():
    ours, found = make("dwa", 3, temperature=1.5), scalarization.DWA(1.5)
    rng = np.random.default_rng(0)
    for _ in range(5):
        batches = torch.tensor(rng.uniform(0.1, 2, (4, 3)), dtype=torch.float32)
        for losses in batches:
            point = losses.clone().requires_grad_()
            assert weights_of(ours.combine(point), point) == pytest.approx(
                weights_of(found(point), point), rel=1e-5
            )
        ours.end_epoch(batches.mean(0).numpy(), None)
        found.step()
    assert ours.weight.std() > 0.1
