"""The dual cone: optimality conditions, and what cannot be met."""

import importlib

import numpy as np
import pytest

from mtlweights.strategies.solvers import dual_cone, least_change
from tests.strategies.solvers.helpers import awkward

SIZES = [2, 3, 5, 8, 17, 40, 64]


@pytest.mark.parametrize("m", SIZES)
def test_dual_cone_meets_the_optimality_conditions(m):
    for jacobian in awkward(m, np.random.default_rng(m)):
        check(jacobian)


def check(jacobian):
    """The projections of all gradients are those on their dual cone."""
    gram, norms, m = jacobian @ jacobian.T, np.linalg.norm(jacobian, axis=1), len(jacobian)
    projected = dual_cone(gram, np.eye(m))
    added, length = (projected - np.eye(m)) * norms, (projected * norms).sum(axis=1, keepdims=True)
    progress = projected @ gram / norms
    assert (added >= -1e-12 * length).all()
    assert (progress >= -1e-10 * length).all()
    assert (np.abs(added * progress) <= 1e-10 * length**2).all()


def test_half_as_many_dimensions_as_gradients_where_pivoting_goes_in_circles(monkeypatch):
    """It gives up soon, and least squares take over, not the method of last resort."""
    given_up = []
    module = importlib.import_module("mtlweights.strategies.solvers.dual_cone")
    pivoting = module.block_pivoting

    def noting(*args):
        found = pivoting(*args)
        given_up.append(np.isnan(found).any(axis=1).sum())
        return found

    monkeypatch.setattr(module, "_active_set", None)
    monkeypatch.setattr(module, "block_pivoting", noting)
    for seed in range(3):
        check(np.random.default_rng(seed).normal(size=(40, 20)))
    assert sum(given_up) > 20


def test_least_change_tells_what_cannot_be_met():
    gram = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert least_change(gram, np.array([-0.1, -0.1])) is None
    assert least_change(np.zeros((1, 1)), np.array([-1.0])) is None
    assert least_change(gram, np.array([-0.1, 0.2])) == pytest.approx([0.1, 0])
    assert least_change(np.eye(2), np.array([1.0, 0.0])).tolist() == [0, 0]


def test_least_change_of_many_meets_the_conditions(monkeypatch):
    """Pivoting does it alone: the method of last resort enters one condition at a time."""
    module = importlib.import_module("mtlweights.strategies.solvers.dual_cone")
    monkeypatch.setattr(module, "_active_set", None)
    rng = np.random.default_rng(1)
    jacobian, linear = rng.normal(size=(100, 150)), rng.normal(size=100)
    gram = jacobian @ jacobian.T
    u = least_change(gram, linear)
    slack = gram @ u + linear
    assert u.min() >= 0
    assert slack.min() >= -1e-10
    assert np.abs(slack[u > 0]).max() <= 1e-10
    assert 20 < (u > 0).sum() < 100
