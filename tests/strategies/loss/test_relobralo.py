"""ReLoBRaLo against its recursion, written out term by term in float64."""

import math

import numpy as np
import pytest
import torch

from mtlweights import strategies
from mtlweights.testing.harness import Case, Harness


def balanced(losses, before, temperature):
    terms = [math.exp(now / (temperature * then)) for now, then in zip(losses, before, strict=True)]
    return [len(losses) * t / sum(terms) for t in terms]


def play(steps, **hyperparameters):
    """The weights of every step [steps, T]."""
    harness = Harness(strategies.get("relobralo")(len(steps[0]), **hyperparameters))
    rows = np.eye(len(steps[0]))
    return [harness.step(Case("", rows, np.array(losses))).weights[0] for losses in steps]


STEPS = np.random.default_rng(0).uniform(0.2, 3, (7, 3))


@pytest.mark.parametrize("rho", [0.0, 1.0])
def test_the_recursion_of_the_paper(rho):
    """At rho = 1 it never looks back, at 0 always."""
    found = play(STEPS, alpha=0.7, rho=rho, temperature=0.5)
    w = [1.0, 1.0, 1.0]
    assert found[0] == pytest.approx(w)
    for n in range(1, 7):
        since_last = balanced(STEPS[n], STEPS[n - 1], 0.5)
        since_first = balanced(STEPS[n], STEPS[0], 0.5)
        for i in range(3):
            w[i] = 0.7 * (rho * w[i] + (1 - rho) * since_first[i]) + 0.3 * since_last[i]
        assert found[n] == pytest.approx(w, rel=1e-5)


def test_the_draw_is_one_for_all_tasks_and_comes_as_often_as_it_should():
    """alpha = 1: a step that looks back has the weights b(first), any other those of the step before."""
    steps = np.random.default_rng(1).uniform(0.2, 3, (2000, 2))
    found = play(steps, alpha=1.0, rho=0.8, temperature=1.0)
    back = 0
    for n in range(1, 2000):
        looked = found[n] == pytest.approx(balanced(steps[n], steps[0], 1.0), rel=1e-4)
        assert looked or found[n] == pytest.approx(found[n - 1])
        back += looked
    assert abs(back / 2000 - 0.2) < 0.03


def test_by_hand():
    """Ratios 1/2 and 1 to the step before."""
    share = 1 / (1 + math.exp(-0.5))
    assert play([(4.0, 1.0), (2.0, 1.0)], alpha=0.0)[1] == pytest.approx([2 * (1 - share), 2 * share])


def test_an_absent_task_waits():
    strategy = strategies.get("relobralo")(3, alpha=0.5)
    strategy.combine(torch.tensor([1.0, 2.0, 3.0]), slice(None))
    strategy.combine(torch.tensor([0.5, 3.0]), np.array([0, 2]))
    assert strategy.last.tolist() == [0.5, 2, 3] and strategy.first.tolist() == [1, 2, 3]
    assert strategy.w.tolist() == pytest.approx(
        [0.5 + 0.5 * balanced((0.5, 3), (1, 3), 1)[0], 1, 0.5 + 0.5 * balanced((0.5, 3), (1, 3), 1)[1]]
    )


def test_a_loss_of_zero_and_a_huge_ratio():
    assert play([(0.0, 1.0), (3.0, 1.0)], alpha=0.0)[1] == pytest.approx([1, 1])
    assert play([(1e-30, 1.0), (1e8, 1.0)], alpha=0.0, temperature=1e-3)[1] == pytest.approx([2, 0])


@pytest.mark.parametrize("wrong", [{"alpha": 1.1}, {"rho": -0.1}, {"temperature": 0}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("relobralo")(2, **wrong)
