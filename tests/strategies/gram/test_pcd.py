"""PCD: closed forms, its moving average, its promise."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import E, direction, make, pairs, weigh


def test_pcd_of_two_in_closed_form():
    for g in pairs():
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)  # the averages of a first step
        short = max(0.3 - unit[0] @ unit[1], 0)
        d = unit[0] + short * unit[1]
        d *= np.linalg.norm(g[0]) / np.linalg.norm(d)
        assert direction("pcd", g, tau=0.3) == pytest.approx(d, rel=1e-9)


def test_pcd_normalises_by_a_corrected_moving_average():
    strategy = make("pcd", 2, primary=1, tau=0.5, beta=0.5)
    strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.arange(2))
    weights = strategy.weights(np.diag([1.0, 9.0]), np.ones(2), np.arange(2))
    v = np.array([(0.25 * 4 + 0.5 * 1) / 0.75, (0.25 * 1 + 0.5 * 9) / 0.75])
    d = np.array([0.5 * math.sqrt(1 / v[0]), 3 / math.sqrt(v[1])])  # orthogonal: n_2 + tau n_1
    d *= 3 / np.linalg.norm(d)
    assert weights * np.array([1, 3]) == pytest.approx(d)


def test_pcd_special_cases():
    opposed = [[1, 1], [0, 1], [0, -1]]
    assert weigh("pcd", opposed).tolist() == [1, 0, 0]  # the conditions exclude each other
    assert weigh("pcd", [[0, 0], [1, 0]]).tolist() == [0, 0]
    assert direction("pcd", E, tau=0.0) == pytest.approx([0, 0], abs=1e-12)
    strategy = make("pcd", 3)
    assert strategy.weights(np.eye(2), np.ones(2), np.array([1, 2])).tolist() == [1, 1]  # no primary


@pytest.mark.parametrize("n_tasks", [3, 6, 12])
def test_pcd_keeps_its_promise_with_the_least_change(n_tasks):
    rng = np.random.default_rng(n_tasks)
    for _ in range(30):
        g = rng.normal(size=(n_tasks, 30)) * 10.0 ** rng.uniform(-1, 1, size=(n_tasks, 1))
        weights = weigh("pcd", g, tau=0.4)
        unit = g / np.linalg.norm(g, axis=1, keepdims=True)
        multipliers = weights * np.linalg.norm(g, axis=1)
        multipliers = multipliers / multipliers[0]
        progress = (unit @ (multipliers @ unit))[1:]
        assert (progress >= 0.4 - 1e-9).all()
        assert np.abs(progress - 0.4)[multipliers[1:] > 0] == pytest.approx(0, abs=1e-9)
        assert np.linalg.norm(weights @ g) == pytest.approx(np.linalg.norm(g[0]))
