"""EPO against a grid, and to the wanted proportion."""

import numpy as np
import pytest

from tests.strategies.helpers import make, pairs, weigh


def epo_programme(g, losses, r):
    """EPO's two linear programmes for two tasks, by a fine grid on the simplex."""
    gram, t = g @ g.T, len(r)
    share = r * losses / (r * losses).sum()
    mu = (share * np.log(t * share)).sum()
    pull = gram @ (r * (np.log(t * share) - mu))
    x = np.linspace(0, 1, 200001)
    b = np.stack([x, 1 - x])
    progress = gram @ b
    if mu <= 1e-4:
        feasible = (progress >= 0).all(0) & (
            pull @ b >= min(pull.max(), 0) - 1e-12
        )  # pull may be all rounding
        gain = progress.sum(0)
    else:
        worst = r * losses == (r * losses).max()
        bound = np.where(worst, 0, np.where(pull > 0, -np.inf, pull)) if (pull > 0).any() else np.zeros(2)
        feasible, gain = (progress >= bound[:, None]).all(0), pull @ b
    return x[feasible][gain[feasible].argmax()] if feasible.any() else None


def test_epo_of_two_meets_a_fine_grid():
    rng = np.random.default_rng(0)
    solved = 0
    for g in pairs(150):
        g = g / np.linalg.norm(g, axis=1, keepdims=True) * rng.uniform(0.5, 2, size=(2, 1))
        r = rng.uniform(0.2, 2, 2)
        losses = 1 / r if rng.random() < 0.3 else rng.uniform(0.2, 2, 2)
        share = epo_programme(g, losses, r)
        expected = [r[0] / r.sum(), r[1] / r.sum()] if share is None else [share, 1 - share]
        solved += share is not None
        assert weigh("epo", g, losses, preference=r.tolist()) == pytest.approx(
            2 * np.array(expected), abs=3e-5
        )
    assert solved > 100


def test_epo_of_more_tasks_extends_that_of_two():
    """A third task with a gradient of its own, a middling loss: HiGHS must find what the grid finds."""
    g = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    weights = weigh("epo", g, [3.0, 1.0, 1.0])
    assert weights == pytest.approx([3, 0, 0], abs=1e-6)  # all on the task that is behind
    assert weigh("epo", g, [1.0, 1.0, 1.0]).sum() == pytest.approx(3)


def test_epo_reaches_the_wanted_proportion():
    """Two quadratic losses in the plane: at the end r_1 l_1 = r_2 l_2, on the Pareto front."""
    goals = np.array([[1.0, 0.0], [-1.0, 0.0]])
    for r in ([1.0, 1.0], [1.0, 4.0], [9.0, 1.0]):
        strategy, x = make("epo", 2, preference=r), np.array([0.3, 0.9])
        for _ in range(4000):
            g = x - goals
            losses = (g * g).sum(axis=1) / 2
            x = x - 0.01 * strategy.weights(g @ g.T, losses, np.arange(len(losses))) @ g
        assert r[0] * losses[0] == pytest.approx(r[1] * losses[1], rel=0.05)
        assert x[1] == pytest.approx(0, abs=0.02)


def test_epo_takes_rounding_below_zero_for_zero():
    assert weigh("epo", np.eye(2), [1.0, -1e-9]) == pytest.approx(weigh("epo", np.eye(2), [1.0, 0.0]))
