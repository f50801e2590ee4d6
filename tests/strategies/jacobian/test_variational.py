"""Variational weights: known shares, zero and noisy gradients."""

import numpy as np
import pytest

from mtlweights.strategies.jacobian.variational import Variational
from tests.strategies.jacobian.helpers import Run, objective


def test_variational_weights_are_the_known_shares():
    """First step, decay 0: n = 1, K = I and noise 1 give V = I / 2 and equal weights; then K is new."""
    run = Run(Variational(2, decay=0.0, pull=0.5))
    assert run.step([[3, 0], [0, 1]]) == pytest.approx([2, 2])
    assert run.weights == pytest.approx([2 / 3, 2])
    # A = I: K = (1/2 + 1/4) / 2 + 1/2, psi = 1 - 2/2 + 3/4
    assert run.strategy.signal.numpy() == pytest.approx(np.diag([0.875, 0.875]))
    assert run.strategy.noise.numpy() == pytest.approx([0.75, 0.75])


def test_variational_gives_a_zero_gradient_no_share():
    """All of m = 2 goes to the other task, at the mean length 3 / 2."""
    run = Run(Variational(2, decay=0.0))
    assert run.step([[3, 0], [0, 0]]) == pytest.approx([3, 0])
    assert run.weights == pytest.approx([1, 0])


def test_variational_gives_a_noisy_task_less():
    rng, run = np.random.default_rng(0), Run(Variational(3, pull=0.02))
    signal = rng.normal(size=400)
    for _ in range(60):
        run.step(signal + np.array([[0.5], [0.5], [8.0]]) * rng.normal(size=(3, 400)))
    lengths = np.array([0.5, 0.5, 8.0]) ** 2 + 1
    shares = run.weights * np.sqrt(lengths)
    assert shares[2] < 0.7 * shares[0]
    assert shares[0] == pytest.approx(shares[1], rel=0.05)


def test_variational_bound_is_that_of_its_state():
    strategy = Variational(2)
    run = Run(strategy)
    rng = np.random.default_rng(0)
    for _ in range(5):
        run.step(rng.normal(size=(2, 50)))
    state = [b.double() for b in (strategy.moments, strategy.signal, strategy.noise)]
    assert strategy.draws == pytest.approx(19)
    assert strategy.bound() == pytest.approx(objective(*state, strategy.draws, 0.1), rel=1e-9)
