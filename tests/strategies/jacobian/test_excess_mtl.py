"""ExcessMTL: excess risks over a baseline."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import C
from tests.strategies.jacobian.helpers import Run, near, random_jacobians


def test_excess_mtl_case_c_then_the_identity():
    """e = (1, 10), then (1/sqrt(2), 1/sqrt(101)): ratios .70711 and .00995."""
    run = Run("excess_mtl", 2, eta=0.01)
    assert run.step(C) == near((0.5, 5))
    assert run.strategy.baseline.tolist() == near((1, 10))
    run.step(np.eye(2))
    ratios = np.array([1 / math.sqrt(2), 0.1 / math.sqrt(101)])
    assert ratios == near((0.707107, 0.00995037))
    expected = np.exp(0.01 * ratios)
    assert run.weights == near(expected / expected.sum())


@pytest.mark.parametrize("warmup", [1, 3])
def test_excess_mtl_against_a_plain_loop(warmup):
    run = Run("excess_mtl", 3, eta=0.5, warmup=warmup, sizes=[3, 4])
    squares, w, baseline = np.zeros((3, 7)), np.full(3, 1 / 3), np.zeros(3)
    for k, g in enumerate(random_jacobians(12)):
        squares += g**2
        excess = (g**2 / np.sqrt(squares)).sum(1)
        if k < warmup:
            baseline += excess / warmup
        else:
            w = w * np.exp(0.5 * excess / baseline)
            w /= w.sum()
        assert run.step(g) == near(w @ g, abs=1e-5)
        assert run.weights == near(w)


def test_excess_mtl_absent_and_warming_tasks_keep_their_weight():
    run = Run("excess_mtl", 3)
    g = random_jacobians(6)
    run.step(g[0][:2], present=[0, 1])
    run.step(g[1][:2], present=[0, 1])
    w = run.strategy.log_weights.exp()
    assert w[2].item() == pytest.approx(1 / 3) and w[0] != w[1] and w.sum().item() == pytest.approx(1)
    run.step(g[2])  # task 2 meets its warm-up
    after = run.strategy.log_weights.exp()
    assert after[2] == w[2] and after[0] != w[0]
    roots = run.kept["roots"].clone()
    run.step(g[3][[0, 2]], present=[0, 2])
    assert run.strategy.log_weights.exp()[1] == after[1] and torch.equal(run.kept["roots"][1], roots[1])
    assert run.weights.sum().item() == pytest.approx(1 - after[1].item())


def test_excess_mtl_baseline_waits_for_a_gradient():
    run = Run("excess_mtl", 2)
    for _ in range(3):
        run.step([(1, 0), (0, 0)])
    assert run.weights.tolist() == near((0.5, 0.5)) and run.strategy.seen.tolist() == [1, 0]
    run.step([(1, 0), (0, 7)])
    assert run.strategy.baseline.tolist() == near((1, 7))


def test_excess_mtl_long_runs_stay_on_the_simplex():
    run = Run("excess_mtl", 2, eta=10.0)
    for _ in range(3000):
        run.step([(1, 0), (0, 3)])
    run.step([(1, 0), (0, 3)])
    for _ in range(2000):
        run.step([(1e3, 0), (0, 3)])
    assert run.weights.sum().item() == pytest.approx(1, abs=1e-5) and run.weights[0] > 0.999
