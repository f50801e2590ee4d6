"""Both strategies that learn relations: that they recover them."""

import math

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from mtlweights.strategies.jacobian.contrastive import Contrastive
from mtlweights.strategies.jacobian.variational import Variational
from tests.strategies.jacobian.helpers import Run
from tests.toys import batch, losses_of, names, toy

both = pytest.mark.parametrize("cls", [Variational, Contrastive])


def auc(score, related):
    """Share of (related, unrelated) pairs in the right order."""
    difference = score[related][:, None] - score[~related]
    return (difference > 0).mean() + (difference == 0).mean() / 2


@both
def test_relations_are_free_of_the_noise_that_raw_cosines_have(cls):
    """Signals correlate by 0.8; each gradient is three quarters noise, so raw cosines are near 0.2."""
    strategy = Variational(2, pull=0.01) if cls is Variational else Contrastive(2)
    rng, run, raw = np.random.default_rng(0), Run(strategy), []
    common, own = rng.normal(size=2000), rng.normal(size=(2, 2000))
    signal = math.sqrt(0.8) * common + math.sqrt(0.2) * own
    for _ in range(150):
        jacobian = signal + math.sqrt(3) * rng.normal(size=(2, 2000))
        raw.append(jacobian[0] @ jacobian[1] / math.prod(np.linalg.norm(jacobian, axis=1)))
        run.step(jacobian)
    assert np.mean(raw) == pytest.approx(0.2, abs=0.03)
    assert strategy.relations()[0, 1] == pytest.approx(0.8, abs=0.05)


def simulated(seed, steps=150, elements=300):
    """A planted structure [steps][T, P] of rows, with noise of very different size, and the truth."""
    rng = np.random.default_rng(seed)
    n_tasks = int(rng.integers(7, 11))
    group = rng.permutation(np.concatenate([[0, 0, 1, 1], rng.integers(0, 3, n_tasks - 4)]))
    base = rng.normal(size=(1, elements))
    common, own = rng.normal(size=(3, elements)), rng.normal(size=(n_tasks, elements))
    signal = 0.4 * base + common[group] + own
    noise, scale = 10 ** rng.uniform(0, 1.2, (n_tasks, 1)), 10 ** rng.uniform(-3, 3, (n_tasks, 1))
    rows = [scale * (signal + noise * rng.normal(size=signal.shape)) for _ in range(steps)]
    i, j = np.triu_indices(n_tasks, 1)
    return rows, (i, j), group[i] == group[j]


@both
def test_planted_relations_are_recovered(cls):
    found, raw = [], []
    for seed in range(4):
        rows, pairs, related = simulated(seed)
        run = Run(cls(len(rows[0])))
        for jacobian in rows:
            run.step(jacobian)
        units = [r / np.linalg.norm(r, axis=1, keepdims=True) for r in rows]
        found.append(auc(run.strategy.relations()[pairs], related))
        raw.append(auc(np.mean([u @ u.T for u in units], 0)[pairs], related))
    assert min(found) >= 0.9
    assert (np.array(found) > raw).sum() >= 2
    assert np.mean(found) > np.mean(raw) + 0.02


@both
@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6])
def test_scale_of_the_losses(cls, scale):
    runs = [Run(cls(3)) for _ in range(2)]
    for seed in range(6):
        jacobian = np.random.default_rng(seed).normal(size=(3, 6))
        plain, scaled = runs[0].step(jacobian), runs[1].step(scale * jacobian)
        assert scaled == pytest.approx(scale * plain, rel=1e-4, abs=1e-5 * scale)
    relations = [run.strategy.relations() for run in runs]
    assert relations[0] == pytest.approx(relations[1], abs=1e-5)


@both
def test_scale_of_one_loss_only_changes_the_length(cls):
    runs = [Run(cls(3)) for _ in range(2)]
    for seed in range(6):
        jacobian = np.random.default_rng(seed).normal(size=(3, 6))
        plain, scaled = runs[0].step(jacobian), runs[1].step(np.array([[1], [1e4], [1]]) * jacobian)
        unit = [d / np.linalg.norm(d) for d in (plain, scaled)]
        assert unit[0] == pytest.approx(unit[1], abs=1e-4)


@both
def test_absent_task_is_left_alone(cls):
    run, rng = Run(cls(3)), np.random.default_rng(0)
    for _ in range(4):
        run.step(rng.normal(size=(3, 5)))
    before = {k: v.clone() for k, v in run.strategy.state_dict().items()} | {"key": run.kept["key"].clone()}
    run.step(rng.normal(size=(2, 5)), present=[0, 2])
    after = run.strategy.state_dict() | {"key": run.kept["key"]}
    for name in before:
        if before[name].dim():
            assert torch.equal(before[name][1], after[name][1])
            assert not torch.equal(before[name], after[name])
    assert run.weights.shape == (2,)


@both
@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_relations_of_degenerate_gradients(cls, n_tasks):
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), [1.0, -2.0, 0.5])
    opposed = rank_one * np.where(np.arange(n_tasks) % 2, -1, 1)[:, None]
    last_is_zero = (
        np.random.default_rng(0).normal(size=(n_tasks, 3)) * (np.arange(n_tasks) < n_tasks - 1)[:, None]
    )
    run = Run(cls(n_tasks))
    for jacobian in (np.zeros((n_tasks, 3)), last_is_zero, rank_one, opposed, np.zeros((n_tasks, 3))):
        assert np.isfinite(run.step(jacobian)).all()
        assert np.isfinite(run.weights).all() and (run.weights >= 0).all()
        relations = run.strategy.relations()
        assert relations.shape == (n_tasks, n_tasks)
        assert (relations == relations.T).all() and (np.diag(relations) == 1).all()
        assert np.abs(relations).max() <= 1
    assert run.weights.sum() == 0


@both
def test_opposed_tasks_are_opposed(cls):
    """Signals g and -g, with noise, and a third task of its own."""
    rng, run = np.random.default_rng(0), Run(cls(3))
    signal = rng.normal(size=(2, 300))[[0, 0, 1]] * np.array([[1], [-1], [1]])
    for _ in range(60):
        run.step(signal + rng.normal(size=(3, 300)))
    relations = run.strategy.relations()
    assert relations[0, 1] < -0.8
    assert np.abs(relations[:2, 2]).max() < 0.2


@both
def test_through_the_balancer_with_a_task_missing(cls):
    model = toy(4)
    balancer = Balancer(cls, tasks=names(4), model=model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for seed in range(10):
        optimizer.zero_grad()
        balancer(losses_of(model, batch(seed=seed), None if seed % 3 else (0, 1, 3))).backward()
        optimizer.step()
    assert np.abs(balancer.strategy.relations() - np.eye(4)).max() > 0.02
    assert (balancer.strategy.count[2] == torch.tensor([6, 6, 6, 6])).all()
