"""PIVRG against its equation, solved by scipy, and the preferences worked out by hand."""

import math

import numpy as np
import pytest
from scipy import optimize

from mtlweights import strategies

ALL = np.full(3, np.nan)


def preferences(scores, limit=2.0, temperature=0.1):
    """Term by term, from validation scores."""
    shortfall = [1 - s for s in scores]
    tau = max((max(shortfall) - min(shortfall)) / math.log(limit), temperature)
    terms = [math.exp(s / tau) for s in shortfall]
    return [len(scores) * t / sum(terms) for t in terms]


def test_without_scores_it_is_fairgrad():
    rows = np.random.default_rng(0).normal(size=(3, 5))
    gram = rows @ rows.T
    fair = strategies.get("fairgrad")(3)
    found = strategies.get("pivrg")(3).weights(gram, np.ones(3), np.arange(3))
    # (G w)_i = w_i^(-1/2), which is what fairgrad's own tests hold it to
    assert gram @ found == pytest.approx(found**-0.5, rel=1e-9)
    assert fair.alpha == 2.0


@pytest.mark.parametrize("scores", [(0.9, 0.5, 0.2), (0.95, 0.9, 0.93), (1.2, -3.0, 0.0)])
def test_the_equation_with_preferences(scores):
    strategy = strategies.get("pivrg")(3)
    strategy.end_epoch(ALL, np.array(scores))
    p = np.array(preferences(scores))
    assert strategy.weight.numpy() == pytest.approx(p, rel=1e-12)
    assert p.max() / p.min() <= 2 + 1e-12
    rows = np.random.default_rng(1).normal(size=(3, 6)) * [[1], [3], [0.5]]
    gram = rows @ rows.T
    root = optimize.root(lambda x: gram @ np.exp(x) - np.sqrt(p / np.exp(x)), np.zeros(3), tol=1e-13)
    assert root.success
    found = strategy.weights(gram, np.ones(3), np.arange(3))
    assert found == pytest.approx(np.exp(root.x), rel=1e-8)


def test_orthogonal_gradients_by_hand():
    """``w_i |g_i|^2 = sqrt(p_i / w_i)``; p = (4/3, 2/3) at a range far above the temperature."""
    strategy = strategies.get("pivrg")(2)
    strategy.end_epoch(np.ones(2), np.array([0.0, 1.0]))
    assert strategy.weight.tolist() == pytest.approx([4 / 3, 2 / 3])
    found = strategy.weights(np.diag([1.0, 16.0]), np.ones(2), np.arange(2))
    assert found == pytest.approx([(4 / 3) ** (1 / 3), (2 / 3 / 256) ** (1 / 3)])


def test_a_task_without_a_score_keeps_preference_one_and_its_last_score_counts():
    strategy = strategies.get("pivrg")(3)
    strategy.end_epoch(ALL, np.array([0.2, np.nan, 0.9]))
    assert strategy.weight.tolist() == pytest.approx(
        [preferences((0.2, 0.9))[0], 1, preferences((0.2, 0.9))[1]]
    )
    strategy.end_epoch(ALL, np.array([np.nan, 0.5, np.nan]))
    assert strategy.weight.tolist() == pytest.approx(preferences((0.2, 0.5, 0.9)))
    before = strategy.weight.clone()
    strategy.end_epoch(ALL, None)
    assert (strategy.weight == before).all()
    found = strategy.weights(np.eye(2), np.ones(2), np.array([2, 0]))
    assert found == pytest.approx(np.cbrt([before[2], before[0]]))


@pytest.mark.parametrize("wrong", [{"limit": 1.0}, {"temperature": 0.0}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("pivrg")(2, **wrong)
