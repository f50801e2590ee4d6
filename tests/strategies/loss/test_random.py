"""RLW: the distribution of its draws, and what they depend on."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import loss_weights, make


def random_weights(n_tasks, step, seed=0, present=slice(None)):
    strategy = make("random", n_tasks)
    strategy.seed = seed
    strategy.step.fill_(step)
    losses = np.ones(n_tasks)[present]
    return loss_weights(strategy, losses, present)[1]


def test_random_weights_are_a_softmax_of_standard_normals():
    draws = np.log([random_weights(4, step) for step in range(4000)])
    assert np.exp(draws).sum(axis=1) == pytest.approx(1)
    # log w_i - log w_j is a difference of two standard normals, N(0, 2).
    for i, j in ((0, 1), (1, 2), (2, 3), (0, 3)):
        difference = draws[:, i] - draws[:, j]
        assert difference.mean() == pytest.approx(0, abs=4 * math.sqrt(2 / 4000))
        assert difference.var() == pytest.approx(2, rel=0.09)
        assert np.mean(np.abs(difference) > math.sqrt(2) * 1.959964) == pytest.approx(0.05, abs=0.014)
    assert abs(np.corrcoef(draws[:-1, 0] - draws[:-1, 1], draws[1:, 0] - draws[1:, 1])[0, 1]) < 0.065


def test_random_weights_depend_on_seed_and_step_alone():
    assert (random_weights(3, 7, seed=1) == random_weights(3, 7, seed=1)).all()
    different = [random_weights(3, step, seed) for step in range(20) for seed in range(20)]
    assert len(np.unique(different, axis=0)) == 400
    assert np.isfinite(random_weights(3, 10**12, seed=2**63)).all()


def test_random_draws_of_present_tasks_do_not_move():
    everyone = random_weights(4, 5)
    subset = random_weights(4, 5, present=np.array([1, 3]))
    assert subset.sum() == pytest.approx(1)
    assert subset[0] / subset[1] == pytest.approx(everyone[1] / everyone[3], rel=1e-5)
