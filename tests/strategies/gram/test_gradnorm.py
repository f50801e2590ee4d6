"""GradNorm: the gradient of its weights, and what keeps them in place."""

import math

import numpy as np
import pytest
import torch

from tests.strategies.helpers import make


def gradnorm_step(norms, losses, initial, alpha=1.5, present=None):
    present = np.arange(len(norms)) if present is None else present
    strategy = make("gradnorm", len(initial), alpha=alpha)
    strategy.weights(np.eye(len(initial)), np.array(initial, dtype=np.float64), np.arange(len(initial)))
    strategy.weights(np.diag(np.square(norms)), np.array(losses, dtype=np.float64), present)
    return strategy


def test_gradnorm_gradient():
    """r = (2/3, 4/3), targets (.816, 2.309); with the sign of alpha inverted it is (-2, 1)."""
    assert gradnorm_step([2.0, 1.0], [0.5, 1.0], [1.0, 1.0]).w.grad.tolist() == [2, -1]


def test_gradnorm_gradient_is_of_the_unweighted_norm():
    strategy = make("gradnorm", 2)
    strategy.w.data = torch.tensor([0.4, 1.6], dtype=torch.float64)
    strategy.weights(np.diag([4.0, 1.0]), np.ones(2), np.arange(2))  # G = (.8, 1.6)
    assert strategy.w.grad.tolist() == [-2, 1]


@pytest.mark.parametrize("n_tasks", [2, 3, 7])
def test_gradnorm_balanced_tasks_do_not_move(n_tasks):
    strategy = gradnorm_step([0.1] * n_tasks, [0.3] * n_tasks, [0.7] * n_tasks)
    assert (strategy.w.grad == 0).all()


def test_gradnorm_initial_losses_are_those_first_seen():
    strategy = make("gradnorm", 3)
    strategy.weights(np.eye(2), np.array([4.0, 6.0]), np.array([0, 2]))
    assert strategy.initial.tolist() == pytest.approx([4, math.nan, 6], nan_ok=True)
    strategy.weights(np.eye(3), np.array([1.0, 5.0, 2.0]), np.arange(3))
    assert strategy.initial.tolist() == [4, 5, 6]


def test_gradnorm_means_are_over_the_tasks_present():
    """Norms (2, 1) of tasks 0 and 2 of three have the mean 1.5; over T it would be 1."""
    strategy = gradnorm_step([2.0, 1.0], [1.0, 1.0], [1.0, 9.0, 1.0], alpha=0, present=np.array([0, 2]))
    assert strategy.w.grad.tolist() == [2, 0, -1]


def test_gradnorm_project_floors_and_leaves_the_others():
    strategy = make("gradnorm", 3)
    strategy.w.data = torch.tensor([-0.5, 0.7, 1.5], dtype=torch.float64)
    strategy.project(torch.tensor([True, False, True]))
    assert strategy.w[1] == 0.7
    assert strategy.w.sum().item() == pytest.approx(3)
    assert strategy.w[0].item() == pytest.approx(2.3 * 0.001 / 1.501)


def test_gradnorm_zero_initial_loss_stays_finite():
    strategy = gradnorm_step([1.0, 2.0], [0.5, 0.0], [0.0, 0.0])
    assert torch.isfinite(strategy.w.grad).all()
