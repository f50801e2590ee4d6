"""LRA against its formula, element by element."""

import numpy as np
import pytest

from mtlweights import strategies
from mtlweights.testing.harness import Case, Harness


def play(steps, present=None, n_tasks=None, **hyperparameters):
    """(direction, weights) of every step, of Jacobians [steps, m, P]."""
    harness = Harness(strategies.get("lra")(n_tasks or len(steps[0]), **hyperparameters))
    every = [slice(None)] * len(steps) if present is None else [np.array(p) for p in present]
    results = [
        harness.step(Case("", rows, np.ones(len(rows)), p)) for rows, p in zip(steps, every, strict=True)
    ]
    return [(r.update, r.weights[0]) for r in results]


STEPS = np.random.default_rng(0).normal(size=(5, 3, 8)) * np.array([[1.0], [1e-3], [40.0]])


@pytest.mark.parametrize("reference", [0, 2])
@pytest.mark.parametrize("statistic", ["max", "mean"])
def test_the_moving_average_of_the_ratios(statistic, reference):
    found = play(STEPS, statistic=statistic, reference=reference, alpha=0.25)
    w = [1.0, 1.0, 1.0]
    for rows, (direction, weights) in zip(STEPS, found, strict=True):
        sizes = [abs(x) for x in rows[reference]]
        top = max(sizes) if statistic == "max" else sum(sizes) / 8
        for i in {0, 1, 2} - {reference}:
            w[i] = 0.75 * w[i] + 0.25 * top / (sum(abs(x) for x in rows[i]) / 8)
        assert weights == pytest.approx(w, rel=1e-6)
        assert direction == pytest.approx(sum(a * row for a, row in zip(w, rows, strict=True)), rel=1e-5)


def test_by_hand():
    """max 4 over mean 1/2, of which a tenth."""
    assert play([np.array([[4.0, -1], [1, 0]])])[0][1] == pytest.approx([1, 0.9 + 0.1 * 8])


def test_zero_gradients_absent_tasks_and_no_reference_leave_weights():
    rows = np.array([[1.0, 2], [3, 1], [0, 0]])
    found = play([rows, rows[:2], rows[:2]], present=[[0, 1, 2], [1, 2], [0, 2]], alpha=1.0)
    assert found[0][1] == pytest.approx([1, 1, 1])
    assert found[1][1] == pytest.approx([1, 1])  # no reference: as they were
    assert found[2][1] == pytest.approx([1, 2 / 2])


def test_heads_are_weighted_too():
    assert strategies.get("lra").heads == "weighted"


@pytest.mark.parametrize("wrong", [{"reference": 3}, {"alpha": 0}, {"statistic": "median"}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("lra")(3, **wrong)
