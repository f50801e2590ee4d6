"""MoCo: tracked gradients, and weights that end at those of MGDA."""

import math

import numpy as np
import pytest
import torch

from mtlweights.strategies.solvers import min_norm
from tests.strategies.helpers import A, B, C
from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians


def project_by_bisection(v, total=1.0):
    low, high = v.min() - total, v.max()
    for _ in range(200):
        level = (low + high) / 2
        low, high = (level, high) if np.maximum(v - level, 0).sum() > total else (low, level)
    return np.maximum(v - low, 0)


@pytest.mark.parametrize(("rho", "radius"), [(0.0, None), (0.3, None), (0.0, 1.5)])
def test_moco_against_a_plain_loop(rho, radius):
    run = Run("moco", 3, beta=0.6, gamma=0.4, rho=rho, decay=0.25, radius=radius, sizes=[3, 4])
    y, lam = None, np.full(3, 1 / 3)
    for k, g in enumerate(random_jacobians(15), 1):
        y = g if y is None else y - 0.6 / k**0.25 * (y - g)
        if radius is not None:
            y = y * np.minimum(1, radius / np.linalg.norm(y, axis=1, keepdims=True))
        lam = project_by_bisection(lam - 0.4 / k**0.25 * (y @ (y.T @ lam) + rho * lam))
        assert run.step(g) == near(lam @ y)
        assert run.weights == near(lam)


def test_moco_first_step_of_case_b():
    """lam - .1 G (1/2, 1/2) = (.4, .5), back on the simplex (.45, .55)."""
    run = Run("moco", 2)
    assert run.step(B) == near((0.35, 0.55))
    assert run.weights.tolist() == near((0.45, 0.55))


@pytest.mark.parametrize("case", [A, B, C, ((1, 0), (5, 5 * math.sqrt(3)))])
def test_moco_finds_the_weights_of_mgda_where_gradients_stay(case):
    """Case B ends at (.4, .6), C2 at a vertex, which a softmax could not reach."""
    jacobian = np.array(case, dtype=float)
    gram = jacobian @ jacobian.T
    run = Run("moco", 2, gamma=1 / gram.max(), decay=0.0)
    for _ in range(600):
        run.step(case)
    assert run.weights == near(min_norm(gram), abs=2e-5)


def test_moco_lam_of_absent_tasks_stays():
    run = Run("moco", 3)
    run.step([(3, 0), (0, 1), (1, 1)])
    lam = run.strategy.lam.clone()
    y = run.kept["y"].clone()
    d = run.step([(1, 0), (0, 1)], present=[0, 2])
    assert run.strategy.lam[1] == lam[1] and torch.equal(run.kept["y"][1], y[1])
    assert run.strategy.lam.sum().item() == pytest.approx(1)
    assert run.strategy.lam[0] != lam[0] and run.kept["counts"].flatten().tolist() == [2, 1, 2]
    assert d == near(run.weights @ run.kept["y"][[0, 2]].numpy())
    run.step([(5, 5)], present=[1])
    assert run.strategy.lam[1].item() == pytest.approx(lam[1].item())


def test_moco_large_and_small_gradients():
    assert first("moco", np.array(B) * 1e6) == near((-1e6, 1e6))  # a vertex
    run = Run("moco", 2)
    run.step(np.array(B) * 1e-6)
    assert run.weights.tolist() == near((0.5, 0.5))
