"""Group DRO against algorithm 1, written out in float64, and where it leads."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies
from mtlweights.testing.harness import Case, Harness

STEPS = np.random.default_rng(0).uniform(0.2, 3, (6, 3))


def play(steps, **hyperparameters):
    """The weights of every step [steps, T]."""
    harness = Harness(strategies.get("group_dro")(len(steps[0]), **hyperparameters))
    rows = np.eye(len(steps[0]))
    return [harness.step(Case("", rows, np.array(losses))).weights[0] for losses in steps]


@pytest.mark.parametrize("normalise", [False, True])
def test_exponentiated_ascent(normalise):
    found, q = play(STEPS, eta=0.3, normalise=normalise), [1 / 3] * 3
    for losses, weights in zip(STEPS, found, strict=True):
        unit = sum(losses) if normalise else 1.0
        q = [a * math.exp(0.3 * x / unit) for a, x in zip(q, losses, strict=True)]
        q = [a / sum(q) for a in q]
        assert weights == pytest.approx(q, rel=1e-5)


def test_all_weight_climbs_to_the_worst_task_and_back():
    found = play([(1.0, 3.0)] * 400 + [(3.0, 1.0)] * 800, eta=0.1)
    assert found[399][1] > 1 - 1e-6 and found[-1][0] > 1 - 1e-6


def test_absent_tasks_keep_their_share():
    strategy = strategies.get("group_dro")(3, eta=1.0)
    losses = torch.tensor([1.0, 2.0], requires_grad=True)
    (weights,) = torch.autograd.grad(strategy.combine(losses, np.array([0, 2])), losses)
    expected = [1 / (1 + math.e), math.e / (1 + math.e)]
    assert weights.tolist() == pytest.approx(expected)
    kept = strategy.log_q.exp().tolist()
    assert kept == pytest.approx([2 / 3 * expected[0], 1 / 3, 2 / 3 * expected[1]])


def test_losses_divided_by_their_sum_need_a_zero_and_have_no_unit():
    cls = strategies.get("group_dro")
    assert cls(2, normalise=True).positive_losses and cls(2, normalise=True).scale_degree == 1
    assert not cls(2).positive_losses and cls(2).scale_degree is None
    assert play(1e6 * STEPS, normalise=True)[-1] == pytest.approx(play(STEPS, normalise=True)[-1], rel=1e-5)
    assert play([(0.0, 0.0)], normalise=True)[0] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("wrong", [{"eta": 0}, {"normalise": "yes"}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("group_dro")(2, **wrong)
