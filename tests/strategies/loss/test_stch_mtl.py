"""Smooth Tchebycheff with a nadir of its own: warm-up, and tasks without one."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import LOSSES, NAN, end_epoch, loss_weights, make


def stch_mtl(*nadir, **hyperparameters):
    strategy = make("stch_mtl", len(nadir), warmup=2, **hyperparameters)
    end_epoch(strategy, [9.0] * len(nadir), [9.0] * len(nadir), nadir)
    return strategy


def test_stch_mtl():
    value, weights = loss_weights(stch_mtl(1, 1, 4))
    assert value == pytest.approx(4.512232)
    assert weights == pytest.approx([2 / 3, 2 / 3, 1 / 6])
    assert loss_weights(stch_mtl(1, 1, 4, mu=0.01))[1] == pytest.approx([0, 0.75, 0.1875])
    assert loss_weights(stch_mtl(1, 1, 4), LOSSES[:2], np.array([0, 1]))[1] == pytest.approx([0.8, 0.8])


def test_stch_mtl_warms_up_with_log_losses():
    strategy = make("stch_mtl", 3)
    for _ in range(5):
        value, weights = loss_weights(strategy)
        assert value == pytest.approx(math.log(8))
        assert weights == pytest.approx([2, 0.5, 0.125])
        end_epoch(strategy, (1, 1, 4))
    assert loss_weights(strategy)[0] == pytest.approx(loss_weights(stch_mtl(1, 1, 4))[0])


def test_stch_mtl_task_without_nadir():
    strategy = stch_mtl(1, NAN)
    assert loss_weights(strategy, (3.0, 7.0))[1] == pytest.approx([2 * 0.75 / 3, 2 * 0.25 / 7])
    end_epoch(strategy, (5, 14))
    assert strategy.nadir.tolist() == [1, 14]
